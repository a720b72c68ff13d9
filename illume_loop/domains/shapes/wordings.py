"""The world's own critique and grade of a picture, which stage 3 of the pretraining teaches.

They are written from what the checker saw (`checker.Component`), so they are true whatever the caption claims.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from illume_loop.domains.shapes.checker import Component, relation_between
from illume_loop.domains.shapes.grammar import NUMBERS, one, part_words, words
from illume_loop.domains.shapes.questions import questions
from illume_loop.domains.shapes.spec import Color, Part, Shape, Spec

MAX_GRADE = 5


def critique(spec: Spec, seen: Sequence[Component]) -> dict[str, object]:
    """Return the critique of a picture: verdict (yes, no) and evidence by criterion, then one sentence of analysis.

    It has the criteria that the spec has.
    """
    verdicts: defaultdict[str, bool] = defaultdict(lambda: True)
    for asked in questions(spec):
        verdicts[asked.question.criterion] &= asked.holds(seen)
    told: dict[str, object] = {
        criterion: {"verdict": "yes" if right else "no", "evidence": _evidence(criterion, seen)}
        for criterion, right in verdicts.items()
    }
    right = all(verdicts.values())
    told["analysis"] = f"it shows {words(spec)}" if right else f"it should show {words(spec)} but shows {scene(seen)}"
    return told


def grade(spec: Spec, seen: Sequence[Component]) -> int:
    """Return the grade: 5 if every question is answered with yes, one less for each no, but at least 1."""
    num_wrong = sum(not asked.holds(seen) for asked in questions(spec))
    return max(1, MAX_GRADE - num_wrong)


def scene(seen: Sequence[Component]) -> str:
    """Return what was seen in the words of a prompt: "two red circles and a blue ring"."""
    counts = Counter((thing.shape, thing.color) for thing in seen if thing.shape and thing.color)
    return _joined([part_words(Part(shape, color, count)) for (shape, color), count in counts.items() if shape])


def _evidence(criterion: str, seen: Sequence[Component]) -> str:
    if criterion == "object":
        shapes: Counter[Shape] = Counter(thing.shape for thing in seen if thing.shape)
        return _joined([one(shape) for shape in shapes])
    if criterion == "count":
        return "one object" if len(seen) == 1 else f"{NUMBERS.get(len(seen), 'many')} objects"
    if criterion == "color":
        colors: Counter[Color] = Counter(thing.color for thing in seen if thing.color)
        return _joined(list(colors))
    if criterion == "position" and len(seen) == 2:
        first, second = seen
        relation = relation_between(first, second)
        if relation is not None:
            return f"the {first.shape} is {relation} the {second.shape}"
    return scene(seen)


def _joined(phrases: Sequence[str]) -> str:
    return " and ".join(phrases) or "nothing"
