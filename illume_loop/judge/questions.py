"""The atomic yes/no questions of a prompt: from its spec, or asked by the model if the spec gives none.

Invariants:
- The model asks its questions as a JSON list, which is parsed strictly. If no try is a valid list, the prompt has no
  questions, and judge, referee and teacher ask about the prompt as a whole (`whole_question`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from illume_loop.judge.critiques import SeedOf, ask_until_valid, parse_json, temperature_of
from illume_loop.judge.instructions import ask
from illume_loop.protocols import CRITERIA, Domain, Prompt, Question, UnifiedModel

Origin = Literal["spec", "self"]

MOST_QUESTIONS = 16

MAX_TOKENS = 160

WHOLE = "whole"
"""The criterion of the question about a prompt as a whole; it is not one of CRITERIA."""

_PLACES = r"(left|right|front) of|above|below|under|beneath|behind|beside|between|next to|near|on top of|over"

_NUMBERS = r"one|two|three|four|five|six|seven|eight|nine|ten|\d+|exactly|how many"

_COLORS = r"red|green|blue|yellow|orange|purple|pink|brown|black|white|gr[ae]y|cyan|magenta|violet|teal|gold|silver"


@dataclass(frozen=True, slots=True)
class PromptQuestions:
    """The questions of a prompt; none if the model could not ask any.

    `num_invalid` counts the model's answers that were not a valid list.
    """

    questions: tuple[Question, ...]
    num_invalid: int = 0


def questions_of(
    prompts: Sequence[Prompt],
    domain: Domain,
    model: UnifiedModel,
    *,
    origin: Origin,
    retries: int,
    seed_of: SeedOf,
) -> Mapping[str, PromptQuestions]:
    """Return the questions of each prompt by its text.

    With origin `spec` the model asks only about prompts whose spec gives no questions; with `self` it asks about all.
    """
    by_text = {prompt.text: prompt for prompt in prompts}
    found = {
        text: PromptQuestions(tuple(domain.questions(prompt) if origin == "spec" else ()))
        for text, prompt in by_text.items()
    }
    untold = [text for text, asked in found.items() if not asked.questions]
    return found | dict(zip(untold, self_asked(untold, model, retries, seed_of), strict=True))


def self_asked(texts: Sequence[str], model: UnifiedModel, retries: int, seed_of: SeedOf) -> list[PromptQuestions]:
    """Let the model ask questions about each prompt, without an image."""

    def write(items: Sequence[int], attempt: int) -> list[str]:
        asked = [ask(texts[item]) for item in items]
        seeds = [seed_of("ask", texts[item], attempt) for item in items]
        return model.instruct(None, asked, temperature=temperature_of(attempt), seeds=seeds, max_tokens=MAX_TOKENS)

    answers = ask_until_valid(write, lambda _, text: parse_questions(text), len(texts), retries)
    return [PromptQuestions(tuple(Question(criterion_of(q), q) for q in a.value or ()), a.num_invalid) for a in answers]


def whole_question(text: str) -> Question:
    """Return the question about a prompt as a whole, for a prompt that has no other question."""
    return Question(WHOLE, f"Does the image show this, and all of it: {text}?")


def parse_questions(text: str) -> list[str]:
    """Parse a JSON list of different questions. Raises ValueError for anything else."""
    found = parse_json(text)
    if not isinstance(found, list) or not 1 <= len(found) <= MOST_QUESTIONS:
        raise ValueError(f"it is no list of 1 to {MOST_QUESTIONS} questions")
    for question in found:
        if not isinstance(question, str) or not question.endswith("?"):
            raise ValueError(f"{question!r} is no question")
    if len(set(found)) < len(found):
        raise ValueError("it asks the same twice")
    return found


def criterion_of(question: str) -> str:
    """Return the criterion of a self-asked question, one of CRITERIA.

    It is found from the question's words, because the model does not give it.
    """

    def has(words: str) -> bool:
        return re.search(rf"\b({words})\b", question.lower()) is not None

    if has(_PLACES):
        found = "position"
    elif has(_NUMBERS):
        found = "count"
    elif has("anything|something|any") and has(_COLORS):
        found = "color"
    elif has(_COLORS) or re.match(r"(is|are) the\b", question.lower()):
        found = "attribute"
    else:
        found = "object"
    assert found in CRITERIA, "each is one of them"
    return found
