"""The closed grammar of the shapes prompts: from a spec to words and back.

prompt   = [opening] phrase
opening  = "a picture of" | "an image with"
phrase   = part | part "and" part | part relation part
part     = "a" [color] shape | number [color] shapes
"""

from __future__ import annotations

from typing import cast

from illume_loop.domains.shapes.spec import (
    COLORS,
    RELATIONS,
    SHAPES,
    Category,
    Color,
    Part,
    Relation,
    Shape,
    Spec,
)
from illume_loop.errors import PromptOutsideGrammarError

OPENINGS = ("", "a picture of ", "an image with ")
NUMBERS = {2: "two", 3: "three", 4: "four"}
PLURALS: dict[Shape, str] = {s: ("crosses" if s == "cross" else f"{s}s") for s in SHAPES}

_ARTICLES = ("a", "an")
_SINGULAR = {plural: shape for shape, plural in PLURALS.items()}
_COUNT_OF = {word: number for number, word in NUMBERS.items()}
_HINT = (
    "write for example 'a red circle', 'three blue squares', 'a ring above a cross' or "
    "'a green diamond and a white triangle'"
)


def words(spec: Spec, opening: str = "") -> str:
    """Return the prompt text of a spec, in lower case with single spaces."""
    joint = f" {spec.relation} " if spec.relation else " and "
    return opening + joint.join(part_words(part) for part in spec.parts)


def vocabulary() -> list[str]:
    """Return every word that the grammar can produce, in a fixed order."""
    found: dict[str, None] = {}
    for text in (*OPENINGS, "a an and", *NUMBERS.values(), *COLORS, *SHAPES, *PLURALS.values(), *RELATIONS):
        found.update(dict.fromkeys(text.split()))
    return list(found)


def parse(text: str) -> Spec:
    """Return the spec that a text asks for; case and surplus spaces do not matter.

    Raises PromptOutsideGrammarError with the reason.
    """
    phrase = " ".join(text.lower().split()).rstrip(".")
    for opening in OPENINGS[1:]:
        phrase = phrase.removeprefix(opening)
    for relation in RELATIONS:
        if f" {relation} " in f" {phrase} ":
            first, second = (_read_part(piece, text) for piece in phrase.split(f" {relation} ", 1))
            return _two_parts(first, second, relation, text)
    pieces = phrase.split(" and ")
    if len(pieces) == 2:
        return _two_parts(_read_part(pieces[0], text), _read_part(pieces[1], text), None, text)
    if len(pieces) > 2:
        raise PromptOutsideGrammarError(text=text, hint=f"at most two kinds of object can be asked for; {_HINT}")
    part = _read_part(phrase, text)
    category: Category = "counting" if part.count > 1 else "colors" if part.color else "single_object"
    return Spec(category, (part,))


def one(noun: str) -> str:
    """Return a noun with its article: "a circle", "an orange circle"."""
    return f"{'an' if noun.startswith('o') else 'a'} {noun}"


def part_words(part: Part) -> str:
    """Return the words of one part: "a circle", "three red squares"."""
    color = f"{part.color} " if part.color else ""
    if part.count > 1:
        return f"{NUMBERS[part.count]} {color}{PLURALS[part.shape]}"
    return one(f"{color}{part.shape}")


def _read_part(piece: str, text: str) -> Part:
    tokens = piece.split()
    if not 2 <= len(tokens) <= 3:
        raise PromptOutsideGrammarError(text=text, hint=_HINT)
    head, *middle, noun = tokens
    count = _COUNT_OF.get(head, 1 if head in (*_ARTICLES, "one") else 0)
    shape = _SINGULAR.get(noun) if count > 1 else noun
    if count == 0 or shape not in SHAPES:
        unknown = head if count == 0 else noun
        raise PromptOutsideGrammarError(text=text, hint=f"'{unknown}' does not fit there; {_HINT}")
    if middle and middle[0] not in COLORS:
        raise PromptOutsideGrammarError(text=text, hint=f"'{middle[0]}' is no colour of this world; {_HINT}")
    return Part(shape, cast(Color, middle[0]) if middle else None, count)


def _two_parts(first: Part, second: Part, relation: Relation | None, text: str) -> Spec:
    if first.shape == second.shape or first.count > 1 or second.count > 1:
        raise PromptOutsideGrammarError(text=text, hint="two parts must be single objects of different shapes")
    colored = (first.color is not None, second.color is not None)
    if relation and colored == (False, False):
        return Spec("position", (first, second), relation)
    if relation is None and colored == (False, False):
        return Spec("two_objects", (first, second))
    if relation is None and colored == (True, True) and first.color != second.color:
        return Spec("color_attribution", (first, second))
    raise PromptOutsideGrammarError(
        text=text, hint="colours stand on both parts (two different ones, joined by 'and') or on none"
    )
