"""The meaning of a shapes prompt, apart from its wording.

A `Spec` has one or two parts, each a shape with an optional colour and a count. In the category `position` it also has
a relation between the two parts. `key` is equal for specs that ask for the same pictures ("a circle left of a square"
and "a square right of a circle"); the splits are made by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations, product
from random import Random
from typing import Literal, cast, get_args

Shape = Literal["circle", "square", "triangle", "diamond", "cross", "ring"]
Color = Literal["red", "orange", "yellow", "green", "cyan", "blue", "purple", "white"]
Relation = Literal["left of", "right of", "above", "below"]
Category = Literal["single_object", "two_objects", "counting", "colors", "position", "color_attribution"]
Attribute = Literal["object", "color", "count", "position"]

SHAPES: tuple[Shape, ...] = get_args(Shape)
COLORS: tuple[Color, ...] = get_args(Color)
RELATIONS: tuple[Relation, ...] = get_args(Relation)
CATEGORIES: tuple[Category, ...] = get_args(Category)
COUNTS = (2, 3, 4)

OPPOSITE: Mapping[Relation, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}


@dataclass(frozen=True, slots=True, order=True)
class Part:
    """A count of objects of one shape; a colour of None means that any colour will do."""

    shape: Shape
    color: Color | None = None
    count: int = 1


@dataclass(frozen=True, slots=True)
class Spec:
    """The meaning of a prompt."""

    category: Category
    parts: tuple[Part, ...]
    relation: Relation | None = None

    @property
    def key(self) -> str:
        """The string that is the same for all specs with the same meaning."""
        parts, relation = self.parts, self.relation
        if relation in ("right of", "below"):
            parts, relation = parts[::-1], OPPOSITE[relation]
        if relation is None:
            parts = tuple(sorted(parts, key=str))
        words = [f"{part.count}*{part.color or 'any'}*{part.shape}" for part in parts]
        return "|".join([self.category, *words, *([relation] if relation else [])])

    def to_json(self) -> dict[str, object]:
        """Return a JSON-ready mapping, the inverse of `spec_from_json`."""
        return {
            "category": self.category,
            "parts": [{"shape": p.shape, "color": p.color, "count": p.count} for p in self.parts],
            "relation": self.relation,
        }


def spec_from_json(data: Mapping[str, object]) -> Spec:
    """Return the spec of a mapping, the inverse of `Spec.to_json`."""
    parts = cast(list[dict[str, object]], data["parts"])
    return Spec(
        category=cast(Category, data["category"]),
        parts=tuple(
            Part(cast(Shape, p["shape"]), cast("Color | None", p["color"]), cast(int, p["count"])) for p in parts
        ),
        relation=cast("Relation | None", data["relation"]),
    )


def all_specs(category: Category) -> Iterator[Spec]:
    """Yield every spec of a category, in every order of its parts, in a fixed order."""
    match category:
        case "single_object":
            yield from (Spec(category, (Part(shape),)) for shape in SHAPES)
        case "two_objects":
            yield from (Spec(category, (Part(a), Part(b))) for a, b in permutations(SHAPES, 2))
        case "counting":
            for shape, count, color in product(SHAPES, COUNTS, (None, *COLORS)):
                yield Spec(category, (Part(shape, color, count),))
        case "colors":
            yield from (Spec(category, (Part(shape, color),)) for shape, color in product(SHAPES, COLORS))
        case "position":
            for (a, b), relation in product(permutations(SHAPES, 2), RELATIONS):
                yield Spec(category, (Part(a), Part(b)), relation)
        case "color_attribution":
            for (a, b), (c, d) in product(permutations(SHAPES, 2), permutations(COLORS, 2)):
                yield Spec(category, (Part(a, c), Part(b, d)))


def change_one_attribute(spec: Spec, rng: Random) -> tuple[Spec, Attribute]:
    """Return a spec of the same category that differs in exactly one attribute, and the name of that attribute.

    The attribute is chosen with equal probability among those that the spec has. Every image of the result contradicts
    the original spec.
    """
    index = rng.randrange(len(spec.parts))
    part = spec.parts[index]
    attributes: list[Attribute] = ["object"]
    if part.color is not None:
        attributes.append("color")
    if spec.category == "counting":
        attributes.append("count")
    if spec.relation is not None:
        attributes.append("position")
    attribute = rng.choice(attributes)
    if attribute == "position":
        assert spec.relation is not None
        return replace(spec, relation=rng.choice([r for r in RELATIONS if r != spec.relation])), attribute
    taken = {p.shape for p in spec.parts}
    if attribute == "object":
        changed = replace(part, shape=rng.choice([s for s in SHAPES if s not in taken]))
    elif attribute == "color":
        used = {p.color for p in spec.parts}
        changed = replace(part, color=rng.choice([c for c in COLORS if c not in used]))
    else:
        changed = replace(part, count=rng.choice([n for n in COUNTS if n != part.count]))
    parts = list(spec.parts)
    parts[index] = changed
    return replace(spec, parts=tuple(parts)), attribute
