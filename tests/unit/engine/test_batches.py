"""Rows in batches: running out of memory halves a batch and loses nothing, and what was learned is remembered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from illume_loop.engine.batches import assembled, bytes_per_slot, draw_batches, in_batches, rows_that_fit
from illume_loop.engine.drawing import draw_images
from illume_loop.engine.sampler import sample_image_ids
from illume_loop.protocols import ImageIds, Sampling
from tests.unit.engine.conftest import SmallModel

PREFIXES = [[1, 7, 8, 3], [1, 9, 10, 11, 12, 3], [1, 3], [1, 7, 8, 3], [1, 5, 3]]
NOTHING = [[1, 3]] * 5


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
def test_what_does_not_fit_is_halved_and_remembered(small_model: SmallModel, error: Exception) -> None:
    tried: list[int] = []

    def work(rows: list[int]) -> list[int]:
        tried.append(len(rows))
        if len(rows) > 3:
            raise error
        return [10 * row for row in rows]

    done = list(in_batches(small_model.body, range(20), 8, work))
    assert [row for rows, _ in done for row in rows] == list(range(20))
    assert [value for _, values in done for value in values] == [10 * row for row in range(20)]
    assert tried[:4] == [20, 10, 5, 2], "halved until it fits"
    assert max(tried[4:]) <= 3
    assert rows_that_fit(small_model.body, 8) == 2, "and the next call begins there"
    assert rows_that_fit(small_model.body, 16) == 1


def test_what_one_row_raises_is_raised(small_model: SmallModel) -> None:
    def work(rows: list[int]) -> None:
        raise torch.OutOfMemoryError("too little for one")

    with pytest.raises(torch.OutOfMemoryError, match="too little for one"):
        list(in_batches(small_model.body, range(4), 8, work))


def test_other_errors_are_raised_at_once(small_model: SmallModel) -> None:
    def work(rows: list[int]) -> None:
        raise RuntimeError("something else")

    with pytest.raises(RuntimeError, match="something else"):
        list(in_batches(small_model.body, range(4), 8, work))


def test_batches_draw_what_one_batch_draws(small_model: SmallModel, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = (PREFIXES, NOTHING, [1, 2, 3, 4, 5], Sampling(2.0), 9)
    together = sample_image_ids(small_model, *arguments)
    monkeypatch.setattr("illume_loop.engine.batches.free_bytes", lambda device: 9000)
    assert bytes_per_slot(small_model.body) == (2 * 3 * 2 * 12 + 2 * 48) * 4
    batches = list(draw_batches(small_model, *arguments))
    assert [len(rows) for rows, _ in batches] == [1] * 5
    lengths = [len(PREFIXES[rows[0]]) for rows, _ in batches]
    assert lengths == sorted(lengths), "rows of one length come together"
    assert np.array_equal(assembled(iter(batches), 5), together.numpy())


class Painter(SmallModel):
    """As much of a UnifiedModel as drawing needs."""

    name, tokens_per_image = "painter", 9

    def draw_batches(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling):  # type: ignore[no-untyped-def]
        rows = [PREFIXES[int(prompt)] for prompt in prompts]
        return draw_batches(self, rows, [[1, 3]] * len(rows), seeds, sampling, 9)

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        return assembled(self.draw_batches(prompts, seeds, sampling), len(prompts))

    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        return [Image.fromarray(ids.astype(np.uint8).reshape(3, 3)) for ids in image_ids_BL]


def test_images_and_names_come_in_the_order_of_the_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    painter, kept = Painter(), []

    def keep(images: Sequence[Image.Image]) -> list[str]:
        kept.append(len(images))
        return [image.tobytes().hex() for image in images]

    monkeypatch.setattr("illume_loop.engine.batches.rows_that_fit", lambda body, num_slots: 2)
    prompts, seeds = ["0", "1", "2", "3", "4"], [5, 6, 7, 8, 9]
    ids, images, names = draw_images(painter, prompts, seeds, Sampling(), keep)  # type: ignore[arg-type]
    assert kept == [2, 2, 1], "batch by batch"
    expected = painter.sample(prompts, seeds, Sampling())
    assert np.array_equal(ids, expected)
    assert names == [image.tobytes().hex() for image in images]
    assert [list(image.tobytes()) for image in images] == expected.tolist()
