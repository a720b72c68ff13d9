"""Atomic yes/no questions about a picture, and the exact checker's answers to them.

Invariants:
- If a picture shows a spec, the answer to every question of the spec is yes.
- If the checker answers every question with yes, it found nothing but what was asked for, apart from an object of
  unclear colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from illume_loop.domains.shapes.checker import Component, relation_between
from illume_loop.domains.shapes.grammar import NUMBERS, PLURALS, one
from illume_loop.domains.shapes.spec import Color, Part, Relation, Shape, Spec
from illume_loop.protocols import Question


@dataclass(frozen=True, slots=True)
class RuledQuestion:
    """A question with the rule that answers it from the seen components."""

    question: Question
    holds: Callable[[Sequence[Component]], bool]


def questions(spec: Spec) -> list[RuledQuestion]:
    """Return the questions of a spec.

    They are about object, count, color and attribute of each part, the number of all objects, and the position.
    """
    asked = [item for part in spec.parts for item in _of_part(part)]
    asked.append(_whole(sum(part.count for part in spec.parts)))
    if spec.relation is not None:
        asked.append(_position(spec.parts[0].shape, spec.relation, spec.parts[1].shape))
    return asked


def words_of_questions() -> Iterator[str]:
    """Yield texts that hold all words of questions that prompts lack."""
    yield "is there one anything object ?"
    yield "are there objects the"


def _of_part(part: Part) -> Iterator[RuledQuestion]:
    shape, color, count = part.shape, part.color, part.count
    text = f"is there {one(shape)} ?"
    yield RuledQuestion(Question("object", text), lambda seen: any(thing.shape == shape for thing in seen))
    text = f"is there one {shape} ?" if count == 1 else f"are there {NUMBERS[count]} {PLURALS[shape]} ?"
    yield RuledQuestion(Question("count", text), lambda seen: sum(thing.shape == shape for thing in seen) == count)
    if color is None:
        return
    text = f"is there anything {color} ?"
    yield RuledQuestion(Question("color", text), lambda seen: any(thing.color == color for thing in seen))
    text = f"is the {shape} {color} ?" if count == 1 else f"are the {PLURALS[shape]} {color} ?"
    yield RuledQuestion(Question("attribute", text), lambda seen: _all_are(seen, shape, color))


def _whole(count: int) -> RuledQuestion:
    text = "is there one object ?" if count == 1 else f"are there {NUMBERS[count]} objects ?"
    return RuledQuestion(Question("count", text), lambda seen: len(seen) == count)


def _position(first: Shape, relation: Relation, second: Shape) -> RuledQuestion:
    text = f"is the {first} {relation} the {second} ?"
    return RuledQuestion(Question("position", text), lambda seen: _stands(seen, first, relation, second))


def _all_are(seen: Sequence[Component], shape: Shape, color: Color) -> bool:
    colors = [thing.color for thing in seen if thing.shape == shape]
    return bool(colors) and all(found == color for found in colors)


def _stands(seen: Sequence[Component], first: Shape, relation: Relation, second: Shape) -> bool:
    a = [thing for thing in seen if thing.shape == first]
    b = [thing for thing in seen if thing.shape == second]
    return len(a) == len(b) == 1 and relation_between(a[0], b[0]) == relation
