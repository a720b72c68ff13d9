"""A judged image is encoded once, and what is written of it goes through the model in batches that fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest
from PIL import Image
from torch import Tensor

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.shapes.render import render
from illume_loop.engine import batches
from illume_loop.evals.suites import understanding
from illume_loop.judge import judge
from illume_loop.judge.critiques import write_critiques
from illume_loop.judge.judge import Judge, Opinion
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import shipped_base
from illume_loop.protocols import encoded_once
from tests.support.tiny_janus import save_tiny_janus

TEXTS = ("a red circle", "a square above a ring", "a green cross", "a yellow ring")
VERDICTS: list[Mapping[str, bool]] = [
    {"object": True, "count": False},
    {"object": True},
    {"object": False, "count": True, "colour": False, "position": True},
    {"object": True, "colour": True},
]


@pytest.fixture(scope="module", params=["illume", "janus"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    if request.param == "illume":
        return load_model(shipped_base("shapes-instruct"))
    return load_model(save_tiny_janus(Path(tmp_path_factory.mktemp("janus"))))


@pytest.fixture
def images() -> list[Image.Image]:
    return [render(parse(text), Random(i)) for i, text in enumerate(TEXTS)]


@pytest.fixture
def encoded(model: Any) -> Iterator[list[int]]:
    """How many images each call of the encoder had."""
    calls: list[int] = []
    inner = model.model.model
    encoder, slices = inner.vision_model if model.name == "janus" else inner.vision.encoder, 1
    if model.name == "illume":
        slices = inner.vision.slices_per_side**2  # the encoder of the shapes world sees an image in pieces

    def count(_: Any, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        calls.append(len(named["pixel_values"] if named else arguments[0]) // slices)

    hook = encoder.register_forward_pre_hook(count, with_kwargs=True)
    yield calls
    hook.remove()


def _critiques(model: Any, images: list[Image.Image]) -> list[Any]:
    return write_critiques(model, images, TEXTS, VERDICTS, retries=2, seed_of=derived_seed, keys=range(len(images)))


def test_critiques_encode_each_image_once_and_stay_the_same(
    model: Any, images: list[Image.Image], encoded: list[int]
) -> None:
    before = _critiques(model, images)
    assert sum(encoded) > 4 * len(images), "one criterion after the other, each on its own"
    encoded.clear()
    with encoded_once(model):
        after = _critiques(model, images)
    assert encoded == [len(images)]
    assert after == before
    encoded.clear()
    model.log_likelihood(images, TEXTS)
    assert encoded == [len(images)], "nothing is kept for longer"


def _judged(model: Any, images: list[Image.Image]) -> list[Opinion]:
    judge = Judge(ShapesDomain(), "yes-no", derived_seed, retries=1, critiques=True)
    prompts = [ShapesDomain().parse(text) for text in TEXTS]
    return judge.judge(model, images, prompts, range(len(images)))


@pytest.mark.parametrize("model", ["illume"], indirect=True)
def test_an_assessment_encodes_each_image_once_for_reading_and_critique(
    model: Any, images: list[Image.Image], encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    opinions = _judged(model, images)
    assert encoded == [len(images)]
    assert all(opinion.critique for opinion in opinions)
    monkeypatch.setattr(judge, "encoded_once", lambda _: nullcontext())
    encoded.clear()
    assert _judged(model, images) == opinions
    assert sum(encoded) > len(images)


@pytest.mark.parametrize("model", ["illume"], indirect=True)
def test_forced_choices_encode_each_image_once(model: Any, encoded: list[int]) -> None:
    assert len(understanding(model, ShapesDomain(), 6, 0)) == 6
    assert sum(encoded) == 6


def test_writing_goes_through_the_model_in_batches_that_fit(
    model: Any, images: list[Image.Image], encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _critiques(model, images)
    rows: list[int] = []
    fit = batches.rows_that_fit
    monkeypatch.setattr(batches, "rows_that_fit", lambda body, slots: min(2, fit(body, slots)))
    hook = model.language.body.register_forward_pre_hook(
        lambda _, __, named: rows.append(len(named["inputs_embeds"])), with_kwargs=True
    )
    encoded.clear()
    assert _critiques(model, images) == whole
    hook.remove()
    assert max(rows) == 2
    assert max(encoded) <= 2


def test_running_out_of_memory_halves_what_is_written_at_once(
    model: Any, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = _critiques(model, images)
    monkeypatch.setattr(batches, "_ROW_SLOTS", type(batches._ROW_SLOTS)())
    body, failed = model.language.body, []

    def refuse(_: Any, __: Any, named: dict[str, Tensor]) -> None:
        if len(named["inputs_embeds"]) > 1:
            failed.append(len(named["inputs_embeds"]))
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    hook = body.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        assert _critiques(model, images) == whole
    finally:
        hook.remove()
    assert failed
