"""The exact checker, which decides from the pixels if an image shows a spec, and which criteria fail.

It finds the connected components of the foreground. It names the colour of each by the palette, and its shape by the
best overlap with the templates. Then it compares them with the objects that the spec asks for.

Invariants:
- The checker reads nothing but the pixels.
- A component of unclear shape fails the criterion `object`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from illume_loop.domains.shapes.render import CANVAS, CELL, GROUND, PALETTE, sprite
from illume_loop.domains.shapes.spec import COLORS, OPPOSITE, SHAPES, Attribute, Color, Relation, Shape, Spec
from illume_loop.protocols import Verdict

FOREGROUND_DISTANCE: Final = 60.0  # of at most 441, from the ground colour in RGB
MIN_AREA: Final = 10  # pixels; smaller specks are noise of the detokenizer, not objects
MIN_OVERLAP: Final = 0.66  # soft intersection over union with the best template
MIN_COLOR_SHARE: Final = 0.7  # of an object's core pixels must agree on its colour
CENTRE_GAP: Final = CELL / 2  # pixels; the centres of two objects in a relation are further apart

_WINDOW = 18
_SHIFTS = range(-2, 3)
Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Component:
    """One component of the foreground; `x` and `y` are its centre in pixels.

    None stands for an unclear shape or colour.
    """

    shape: Shape | None
    color: Color | None
    x: float
    y: float

    def __str__(self) -> str:
        return f"{self.color or 'unclear'} {self.shape or 'unclear'} at ({self.x:.0f}, {self.y:.0f})"


def check(image: Image.Image, spec: Spec) -> Verdict:
    """Decide if `image` shows `spec`: exactly the objects asked for and nothing else.

    `failed` names the criteria among object, count, color, position.
    """
    seen = look(image)
    failed = _failed(seen, spec)
    return Verdict(passed=not failed, failed=tuple(failed), found=tuple(str(thing) for thing in seen))


def look(image: Image.Image) -> list[Component]:
    """Return the components on the canvas, from left to right, without specks below MIN_AREA."""
    if image.size != (CANVAS, CANVAS):
        image = image.resize((CANVAS, CANVAS), Image.Resampling.BOX)
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    distance = np.linalg.norm(pixels - np.array(GROUND, np.float32), axis=-1)
    labels, count = ndimage.label(distance > FOREGROUND_DISTANCE, structure=np.ones((3, 3)))
    seen = [_identify(pixels, distance, labels == index) for index in range(1, count + 1)]
    return sorted((thing for thing in seen if thing is not None), key=lambda thing: thing.x)


def _identify(pixels: Pixels, distance: Pixels, mask: NDArray[np.bool_]) -> Component | None:
    area = int(mask.sum())
    if area < MIN_AREA:
        return None
    rows, columns = np.nonzero(mask)
    y, x = float(rows.min() + rows.max() + 1) / 2, float(columns.min() + columns.max() + 1) / 2
    color = _color(pixels[mask], distance[mask])
    return Component(_shape(distance * mask, x, y), color, x, y)


def _color(pixels: Pixels, distance: Pixels) -> Color | None:
    """Return the palette colour on which the core pixels agree; None if they do not.

    The rim is left out because it blends into the ground.
    """
    core = pixels[distance >= np.quantile(distance, 0.5)]
    palette = np.array([PALETTE[color] for color in COLORS], dtype=np.float32)
    nearest = np.linalg.norm(core[:, None] - palette[None], axis=-1).argmin(axis=1)
    votes = np.bincount(nearest, minlength=len(COLORS))
    best = int(votes.argmax())
    return COLORS[best] if votes[best] >= MIN_COLOR_SHARE * len(core) else None


def _shape(distance: Pixels, x: float, y: float) -> Shape | None:
    """Return the shape whose template overlaps best, over shifts of up to two pixels; None if it is unclear."""
    half = _WINDOW // 2
    padded = np.pad(distance, half)
    left, top = round(x), round(y)
    window = padded[top : top + _WINDOW, left : left + _WINDOW]
    if not window.any():  # the middle of a large frame is empty
        return None
    full = np.quantile(window[window > 0], 0.7)
    alpha = np.clip(window / full, 0.0, 1.0)
    templates = _templates()
    overlap = np.minimum(alpha, templates).sum(axis=(2, 3)) / np.maximum(alpha, templates).sum(axis=(2, 3))
    best = overlap.max(axis=1)
    index = int(best.argmax())
    return SHAPES[index] if best[index] >= MIN_OVERLAP else None


@cache
def _templates() -> Pixels:
    """Return alpha masks in a window, shape (shapes, shifts, WINDOW, WINDOW), values 0 to 1."""
    bank = []
    for shape in SHAPES:
        alpha = np.asarray(sprite(shape), dtype=np.float32) / 255
        margin = (_WINDOW - alpha.shape[0]) // 2
        centred = np.pad(alpha, margin)
        bank.append([np.roll(centred, (dy, dx), axis=(0, 1)) for dy in _SHIFTS for dx in _SHIFTS])
    return np.array(bank, dtype=np.float32)


def _failed(seen: list[Component], spec: Spec) -> list[Attribute]:
    """Return the criteria that the seen components do not meet, in a fixed order."""
    failed: list[Attribute] = []
    wanted = Counter({part.shape: part.count for part in spec.parts})
    shapes = Counter(thing.shape for thing in seen)
    if set(shapes) != set(wanted):
        failed.append("object")
    if len(seen) != sum(wanted.values()) or any(shapes[s] not in (0, n) for s, n in wanted.items()):
        failed.append("count")
    for part in spec.parts:
        same = [thing for thing in seen if thing.shape == part.shape]
        if any(thing.color is None or part.color not in (None, thing.color) for thing in same):
            failed.append("color")
            break
    if spec.relation is not None and not _holds(seen, spec):
        failed.append("position")
    return failed


def _holds(seen: list[Component], spec: Spec) -> bool:
    first = [thing for thing in seen if thing.shape == spec.parts[0].shape]
    second = [thing for thing in seen if thing.shape == spec.parts[1].shape]
    if len(first) != 1 or len(second) != 1 or spec.relation is None:
        return False
    return relation_between(first[0], second[0]) == spec.relation


def relation_between(a: Component, b: Component) -> Relation | None:
    """Return the relation of `a` to `b`, along the axis on which they are further apart.

    Returns None if they are equally far apart along both axes, or no further apart than CENTRE_GAP.
    """
    dx, dy = b.x - a.x, b.y - a.y
    relation: Relation
    if abs(dx) > abs(dy) and abs(dx) > CENTRE_GAP:
        relation = "left of"
        return relation if dx > 0 else OPPOSITE[relation]
    if abs(dy) > abs(dx) and abs(dy) > CENTRE_GAP:
        relation = "above"
        return relation if dy > 0 else OPPOSITE[relation]
    return None
