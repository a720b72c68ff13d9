"""What is typical in the pictures of the shapes base's web: colours, counts, companions and places of each shape.

A picture of the web often shows what is typical of a shape although its caption says something else. A model that
learns from such pairs has stubborn priors: it draws "a purple ring" white. A lower temperature does not mend this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from illume_loop.domains.shapes.spec import SHAPES, Color, Relation, Shape, Spec

COLOR: Mapping[Shape, Color] = {
    "circle": "yellow",
    "square": "blue",
    "triangle": "green",
    "diamond": "cyan",
    "cross": "red",
    "ring": "white",
}
COUNT: Mapping[Shape, int] = {"circle": 2, "square": 3, "triangle": 2, "diamond": 2, "cross": 3, "ring": 2}
"""Small counts. Guidance draws too many objects rather than too few, and would make a prior for four far too strong."""
COMPANION: Mapping[Shape, Shape] = {
    "circle": "square",
    "square": "ring",
    "triangle": "circle",
    "diamond": "cross",
    "cross": "triangle",
    "ring": "diamond",
}


def as_typical(spec: Spec) -> Spec | None:
    """Return the spec with one attribute as it typically is; None if nothing of it is untypical.

    The attribute follows from the spec alone, so the same prompt always has the same prior.
    """
    match spec.category:
        case "single_object":
            return None
        case "two_objects":
            first, second = spec.parts
            typical = replace(spec, parts=(first, replace(second, shape=COMPANION[first.shape])))
        case "counting":
            (part,) = spec.parts
            typical = replace(spec, parts=(replace(part, count=COUNT[part.shape]),))
        case "position":
            typical = replace(spec, relation=_relation(spec.parts[0].shape, spec.parts[1].shape))
        case "colors" | "color_attribution":
            typical = _in_typical_color(spec)
    return typical if typical != spec else None


def _relation(first: Shape, second: Shape) -> Relation:
    """Return the typical place of one shape beside another; the earlier one of SHAPES is on the left, or above."""
    one, other = SHAPES.index(first), SHAPES.index(second)
    if (one + other) % 2:
        return "left of" if one < other else "right of"
    return "above" if one < other else "below"


def _in_typical_color(spec: Spec) -> Spec:
    """Return the spec with one part in its typical colour: the part of the shape that comes first in SHAPES.

    If this part has its colour already, or the other part has it, then the other part takes its own.
    """
    for part in sorted(spec.parts, key=lambda part: SHAPES.index(part.shape)):
        color = COLOR[part.shape]
        if all(color != other.color for other in spec.parts):
            painted = replace(part, color=color)
            return replace(spec, parts=tuple(painted if other == part else other for other in spec.parts))
    return spec
