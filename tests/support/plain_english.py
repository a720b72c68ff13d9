"""What the shapes world answers to questions in plain English: those of text specs, and those of the whole."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from illume_loop.domains.shapes.checker import Component, relation_between
from illume_loop.domains.shapes.grammar import NUMBERS, PLURALS, parse
from illume_loop.domains.shapes.questions import questions
from illume_loop.errors import PromptOutsideGrammarError

Holds = Callable[[Sequence[Component]], bool]
COUNTS = {word: number for number, word in NUMBERS.items()}
SINGULAR = {plural: shape for shape, plural in PLURALS.items()}


def understood(text: str) -> Holds:
    """The rule that answers a question; what is not of this world is answered with no."""
    for pattern, rule in RULES:
        match = re.fullmatch(pattern, text)
        if match is not None:
            return lambda seen: rule(seen, *match.groups())
    raise AssertionError(f"nobody understands: {text}")


def _shows(seen: Sequence[Component], prompt: str) -> bool:
    try:
        return all(asked.holds(seen) for asked in questions(parse(prompt)))
    except PromptOutsideGrammarError:
        return False


def _counts(seen: Sequence[Component], degree: str, number: str, plural: str) -> bool:
    found = sum(thing.shape == SINGULAR.get(plural) for thing in seen)
    return found == COUNTS[number] if degree == "exactly" else found >= COUNTS[number]


def _related(seen: Sequence[Component], first: str, relation: str, second: str) -> bool:
    pairs = [(a, b) for a in seen for b in seen if a.shape == first and b.shape == second]
    return any(relation_between(a, b) == relation for a, b in pairs)


RULES: tuple[tuple[str, Callable[..., bool]], ...] = (
    (r"Does the image show this, and all of it: (.+)\?", _shows),
    (r"Is there an? (\w+) in the image\?", lambda seen, shape: any(thing.shape == shape for thing in seen)),
    (r"Are there (exactly|at least) (\w+) (\w+) in the image\?", _counts),
    (r"Is anything in the image (\w+)\?", lambda seen, color: any(thing.color == color for thing in seen)),
    (r"Is the (\w+) (left of|right of|above|below) the (\w+)\?", _related),
    (
        r"Is the (\w+) (\w+)\?",
        lambda seen, shape, color: any((thing.shape, thing.color) == (shape, color) for thing in seen),
    ),
)
