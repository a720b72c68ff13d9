"""Slices of images that are read: grids by shape, an overview first, and one block as it always was."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.slices import blocks_of, grid_of, num_blocks


def test_grids_follow_the_shape_and_the_size() -> None:
    side = 100
    for size, most, grid in (
        ((100, 100), 9, (1, 1)),
        ((40, 40), 9, (1, 1)),
        ((300, 300), 9, (3, 3)),
        ((1000, 1000), 9, (3, 3)),
        ((200, 100), 9, (2, 1)),
        ((100, 200), 9, (1, 2)),
        ((400, 200), 9, (4, 2)),
        ((1200, 200), 9, (8, 1)),
        ((300, 200), 9, (3, 2)),
        ((200, 200), 4, (2, 2)),
        ((1000, 1000), 1, (1, 1)),
    ):
        assert grid_of(*size, side, most) == grid, size
        columns, rows = grid
        assert columns * rows <= most
        assert num_blocks(*size, side, most) == (1 if columns * rows == 1 else 1 + columns * rows)


def test_slices_cover_the_image_row_by_row_behind_its_overview() -> None:
    image = Image.new("RGB", (30, 20))
    for x in range(3):
        for y in range(2):
            image.paste((80 * x, 100 * y, 0), (10 * x, 10 * y, 10 * x + 10, 10 * y + 10))
    overview, *slices = blocks_of(image, 10, 9)
    assert overview is image
    assert [(one.size, one.getpixel((5, 5))) for one in slices] == [
        ((10, 10), (80 * x, 100 * y, 0)) for y in range(2) for x in range(3)
    ]
    assert blocks_of(image, 10, 1) == [image]


def test_a_model_of_one_slice_reads_as_it_did_and_one_of_nine_sees_more(sharp_backend: IllumeBackend) -> None:
    pair = ShapesDomain().real_pairs(1, 0)[0]
    large = pair.image.resize((144, 96), Image.Resampling.NEAREST)
    config = sharp_backend.model.config
    assert config.max_slices == 1
    plain = sharp_backend.log_likelihood([pair.image, large], [pair.caption] * 2)
    squeezed = sharp_backend._embedded([sharp_backend.sequences.read_prefix()], sharp_backend.features([large]))
    assert torch.equal(sharp_backend._seen([large])[0], squeezed[0])
    try:
        config.max_slices = 9
        seen = sharp_backend._seen([pair.image, large])
        assert [len(one) for one in seen] == [1 + 38, 1 + 7 * 38], "an overview and three by two slices"
        sliced = sharp_backend.log_likelihood([pair.image, large], [pair.caption] * 2)
        assert sliced[0] == pytest.approx(plain[0]), "a small image is one block, whatever the bound"
        assert sliced[1] != pytest.approx(plain[1])
        told = sharp_backend.instruct([pair.image, large], ["is it red ?"] * 2, max_tokens=3)
        assert told[0] == sharp_backend.instruct([pair.image], ["is it red ?"], max_tokens=3)[0]
    finally:
        config.max_slices = 1
