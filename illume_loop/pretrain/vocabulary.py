"""The words of the shapes bases: words of prompts, questions, critiques and edits."""

from __future__ import annotations

from collections.abc import Iterable

from illume_loop.domains.shapes.grammar import vocabulary
from illume_loop.domains.shapes.questions import words_of_questions
from illume_loop.judge import instructions
from illume_loop.models.illume.processing import split_words
from illume_loop.protocols import CRITERIA, NO, YES


def prompt_words() -> list[str]:
    """Return every word of a prompt or caption, in a fixed order."""
    return _different(vocabulary())


def base_words() -> list[str]:
    """Return every word that a stage can use, in a fixed order. The words of prompts come first."""
    critique: dict[str, object] = {name: {"verdict": "yes", "evidence": "many objects"} for name in CRITERIA}
    critique["analysis"] = "it shows nothing"
    texts = [
        *vocabulary(),
        *words_of_questions(),
        instructions.rate("it"),
        instructions.ask("it"),
        instructions.critique("it"),
        "it should show a circle but shows a square",
        "make the circle red",
        instructions.json_answer(critique),
        instructions.json_answer(["is it ?", "is it ?"]),
        YES,
        NO,
        *instructions.GRADES,
    ]
    return _different(texts)


def _different(texts: Iterable[str]) -> list[str]:
    found: dict[str, None] = {}
    for text in texts:
        found.update(dict.fromkeys(split_words(text)))
    return list(found)
