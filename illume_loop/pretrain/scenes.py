"""Pretraining batches of the shapes world: pixels, and the captions that describe them.

A batch depends only on (seed, purpose, step).
"""

from __future__ import annotations

from random import Random
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from illume_loop.domains.shapes.render import CANVAS, CELL, Placed, draw, place
from illume_loop.domains.shapes.spec import CATEGORIES, COLORS, SHAPES, Part, Spec, all_specs

NOTHING = "nothing"
_SPECS = {category: tuple(all_specs(category)) for category in CATEGORIES}


def random_spec(rng: Random) -> Spec:
    """Return a random spec of the whole grammar. All categories are equally probable."""
    return rng.choice(_SPECS[rng.choice(CATEGORIES)])


def random_layout(rng: Random) -> list[Placed]:
    """Return a random layout: half the time a spec of the grammar, half the time one to five unrelated objects."""
    if rng.random() < 0.5:
        return place(random_spec(rng), rng)
    parts = tuple(Part(rng.choice(SHAPES), rng.choice(COLORS)) for _ in range(rng.randint(1, 5)))
    return place(Spec("counting", parts), rng)


def slice_captions(layout: list[Placed]) -> list[str]:
    """Return the content of each 16-pixel cell of the canvas, row by row: "red circle", or "nothing"."""
    captions = [NOTHING] * (CANVAS // CELL) ** 2
    for thing in layout:
        captions[thing.y // CELL * (CANVAS // CELL) + thing.x // CELL] = f"{thing.color} {thing.shape}"
    return captions


def layouts(seed: int, purpose: str, step: int, count: int) -> list[list[Placed]]:
    """Return `count` random layouts."""
    rng = Random(f"{purpose}/{seed}/{step}")
    return [random_layout(rng) for _ in range(count)]


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Return images as float pixels (B, 3, S, S) in [0, 1]."""
    stacked = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255


def pixel_batch(seed: int, purpose: str, step: int, count: int, scale: Literal[1, 2] = 1) -> Tensor:
    """Return random pictures as float pixels (B, 3, S, S) in [0, 1]. S is CANVAS times `scale`."""
    return to_pixels([draw(layout, scale) for layout in layouts(seed, purpose, step, count)])
