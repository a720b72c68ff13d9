"""The blocks in which an image is read: the whole image, and its slices if it is larger than the encoder's picture.

An image that is no larger than one picture is one block, whatever the bound. A larger image has as many slices as its
area asks for, up to a bound, in the grid whose shape is nearest to the image's.
"""

from __future__ import annotations

import math
from functools import lru_cache

from PIL import Image

MAX_SLICES = 9
"""The most slices of an image, besides its overview, in stage 3 of the paper (arXiv 2412.06673)."""


@lru_cache(maxsize=4096)
def grid_of(width: int, height: int, side: int, max_slices: int) -> tuple[int, int]:
    """Return (columns, rows) of the slices of an image; (1, 1) is the image as it is."""
    # The number of pictures that cover the image is rounded: an image of a little over one picture is not cut.
    wanted = min(max_slices, max(1, round(width * height / side**2)))
    grids = [(columns, count // columns) for count in (wanted - 1, wanted, wanted + 1) for columns in _divisors(count)]
    allowed = [grid for grid in grids if 1 <= grid[0] * grid[1] <= max_slices] if wanted > 1 else [(1, 1)]
    # Of two shapes that fit equally well, the finer one is taken, because it keeps more detail.
    return min(allowed, key=lambda grid: (abs(math.log(width * grid[1] / (height * grid[0]))), -grid[0] * grid[1]))


def num_blocks(width: int, height: int, side: int, max_slices: int) -> int:
    """Return the number of blocks of an image: its overview, and its slices if it has several."""
    columns, rows = grid_of(width, height, side, max_slices)
    return 1 + columns * rows if columns * rows > 1 else 1


def blocks_of(image: Image.Image, side: int, max_slices: int) -> list[Image.Image]:
    """Return the image, and its slices of `side` x `side` pixels, row by row, if it has several."""
    columns, rows = grid_of(image.width, image.height, side, max_slices)
    if columns * rows == 1:
        return [image]
    large = image.resize((columns * side, rows * side), Image.Resampling.BICUBIC)
    boxes = [
        (column * side, row * side, (column + 1) * side, (row + 1) * side)
        for row in range(rows)
        for column in range(columns)
    ]
    return [image, *(large.crop(box) for box in boxes)]


def _divisors(count: int) -> list[int]:
    return [divisor for divisor in range(1, count + 1) if count % divisor == 0]
