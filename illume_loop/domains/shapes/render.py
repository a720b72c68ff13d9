"""The renderer: place the objects of a spec on a 3 x 3 layout and draw them with Pillow.

The canvas is 48 x 48 pixels, RGB, on a dark ground. Each object is 12 pixels across, sits in its own 16-pixel cell and
is moved right and down by up to JITTER pixels, so two objects are never less than three pixels apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal

from PIL import Image, ImageDraw

from illume_loop.domains.shapes.spec import COLORS, Color, Part, Relation, Shape, Spec

CANVAS = 48
CELL = 16
OBJECT = 12
JITTER = 1
GROUND = (24, 26, 32)
PALETTE: dict[Color, tuple[int, int, int]] = {
    "red": (228, 38, 44),
    "orange": (250, 140, 20),
    "yellow": (250, 228, 70),
    "green": (40, 175, 75),
    "cyan": (60, 210, 228),
    "blue": (45, 85, 235),
    "purple": (155, 60, 205),
    "white": (240, 240, 240),
}
_SUPERSAMPLE = 8


@dataclass(frozen=True, slots=True)
class Placed:
    """One object on the canvas; `x` and `y` are the pixel coordinates of its centre."""

    shape: Shape
    color: Color
    x: int
    y: int


@cache
def sprite(shape: Shape, scale: Literal[1, 2] = 1) -> Image.Image:
    """Return the anti-aliased alpha mask of a shape.

    It has mode L and is OBJECT + 2 pixels square, times `scale`.
    """
    side = (OBJECT + 2) * _SUPERSAMPLE
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)
    low, high = _SUPERSAMPLE, side - _SUPERSAMPLE - 1
    middle, third = side / 2, OBJECT * _SUPERSAMPLE / 3
    match shape:
        case "circle":
            draw.ellipse((low, low, high, high), fill=255)
        case "ring":
            draw.ellipse((low, low, high, high), fill=255)
            hole = 3 * _SUPERSAMPLE
            draw.ellipse((middle - hole, middle - hole, middle + hole, middle + hole), fill=0)
        case "square":
            inset = _SUPERSAMPLE // 2
            draw.rectangle((low + inset, low + inset, high - inset, high - inset), fill=255)
        case "triangle":
            draw.polygon([(middle, low), (high, high), (low, high)], fill=255)
        case "diamond":
            draw.polygon([(middle, low), (high, middle), (middle, high), (low, middle)], fill=255)
        case "cross":
            draw.rectangle((low, middle - third / 2, high, middle + third / 2 - 1), fill=255)
            draw.rectangle((middle - third / 2, low, middle + third / 2 - 1, high), fill=255)
    return image.reduce(_SUPERSAMPLE // scale)


def place(spec: Spec, rng: Random) -> list[Placed]:
    """Return a random layout that shows `spec`; free colours, cells and offsets are random."""
    parts = [part for part in spec.parts for _ in range(part.count)]
    if spec.relation is None:
        cells = rng.sample([(c, r) for c in range(3) for r in range(3)], len(parts))
    else:
        cells = _related_cells(spec.relation, rng)
    return [_placed(part, cell, rng) for part, cell in zip(parts, cells, strict=True)]


def draw(objects: list[Placed], scale: Literal[1, 2] = 1) -> Image.Image:
    """Draw the picture of a layout, RGB, CANVAS pixels square, times `scale`."""
    image = Image.new("RGB", (CANVAS * scale, CANVAS * scale), GROUND)
    for thing in objects:
        mask = sprite(thing.shape, scale)
        image.paste(PALETTE[thing.color], (thing.x * scale - mask.width // 2, thing.y * scale - mask.height // 2), mask)
    return image


def render(spec: Spec, rng: Random) -> Image.Image:
    """Draw one random picture of `spec`."""
    return draw(place(spec, rng))


def _placed(part: Part, cell: tuple[int, int], rng: Random) -> Placed:
    column, row = cell
    color: Color = part.color if part.color is not None else rng.choice(COLORS)
    return Placed(
        part.shape,
        color,
        column * CELL + CELL // 2 + rng.randint(0, JITTER),
        row * CELL + CELL // 2 + rng.randint(0, JITTER),
    )


def _related_cells(relation: Relation, rng: Random) -> list[tuple[int, int]]:
    """Return two cells in the relation.

    They are further apart along its axis than across it, so that no other relation holds too.
    """
    near, far = rng.choice([(0, 1), (1, 2), (0, 2)])
    across = rng.randrange(3)
    drift = rng.choice([-1, 0, 1]) if far - near == 2 else 0
    across_far = min(2, max(0, across + drift))
    first, second = (
        ((near, across), (far, across_far))
        if relation in ("left of", "above")
        else (
            (far, across_far),
            (near, across),
        )
    )
    if relation in ("above", "below"):
        first, second = first[::-1], second[::-1]
    return [first, second]
