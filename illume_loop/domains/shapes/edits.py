"""Image editing in the shapes world: a picture, an instruction, and the exact check of the result.

Invariants:
- `check_edit` decides from pixels alone, by comparing what the checker sees before and after. The edited object must
  have changed as asked, and every other object must still be in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from PIL import Image

from illume_loop.domains.shapes.checker import Component, look
from illume_loop.domains.shapes.grammar import one
from illume_loop.domains.shapes.render import CELL, Placed
from illume_loop.domains.shapes.spec import COLORS, SHAPES, Color, Shape
from illume_loop.protocols import Verdict


@dataclass(frozen=True, slots=True)
class Edit:
    """A change of the one object of this colour and shape to another colour or another shape."""

    color: Color
    shape: Shape
    new_color: Color
    new_shape: Shape

    @property
    def text(self) -> str:
        """The instruction: "make the red circle blue" or "make the red circle a square"."""
        wanted = self.new_color if self.new_shape == self.shape else one(self.new_shape)
        return f"make the {self.color} {self.shape} {wanted}"


def random_edit(layout: Sequence[Placed], rng: Random) -> Edit | None:
    """Return an edit of an object that is the only one of its colour and shape; None if there is no such object."""
    kinds = [(thing.color, thing.shape) for thing in layout]
    single = [kind for kind in kinds if kinds.count(kind) == 1]
    if not single:
        return None
    color, shape = rng.choice(single)
    if rng.random() < 0.5:
        return Edit(color, shape, rng.choice([c for c in COLORS if c != color]), shape)
    return Edit(color, shape, color, rng.choice([s for s in SHAPES if s != shape]))


def apply(edit: Edit, layout: Sequence[Placed]) -> list[Placed]:
    """Return the layout after the edit."""
    return [
        replace(thing, color=edit.new_color, shape=edit.new_shape)
        if (thing.color, thing.shape) == (edit.color, edit.shape)
        else thing
        for thing in layout
    ]


def check_edit(before: Image.Image, after: Image.Image, edit: Edit) -> Verdict:
    """Decide if `after` shows what `edit` makes of `before`.

    `failed` names `object` if the edited object is not as asked, and `kept` if another object has changed, moved by
    half a cell or more, appeared or gone.
    """
    seen, found = look(before), look(after)
    meant = [thing for thing in seen if (thing.color, thing.shape) == (edit.color, edit.shape)]
    rest = [thing for thing in seen if thing not in meant]
    edited = [replace(thing, color=edit.new_color, shape=edit.new_shape) for thing in meant]
    failed = []
    if not edited or not all(_is_there(thing, found) for thing in edited):
        failed.append("object")
    if len(found) != len(seen) or not all(_is_there(thing, found) for thing in rest):
        failed.append("kept")
    return Verdict(not failed, tuple(failed), tuple(str(thing) for thing in found))


def _is_there(wanted: Component, found: Sequence[Component]) -> bool:
    return any(
        (thing.shape, thing.color) == (wanted.shape, wanted.color)
        and abs(thing.x - wanted.x) < CELL / 2
        and abs(thing.y - wanted.y) < CELL / 2
        for thing in found
    )
