"""Questions from the spec, or self-asked, parsed strictly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.questions import questions
from illume_loop.domains.shapes.spec import CATEGORIES, all_specs
from illume_loop.judge.questions import MOST_QUESTIONS, PromptQuestions, criterion_of, parse_questions, questions_of
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import Prompt, Question
from tests.support.canned_model import CannedModel

DOMAIN = ShapesDomain()
PROMPT = DOMAIN.parse("a red circle and a blue square")


class Mumbling(CannedModel):
    """Asks in valid JSON from its third try on, or never."""

    def __init__(self, valid_from: int) -> None:
        super().__init__(1.0)
        self.valid_from = valid_from
        self.calls: list[tuple[float, tuple[int, ...]]] = []

    def instruct(self, images: Any, instructions: Sequence[str], **more: Any) -> list[str]:
        self.calls.append((more["temperature"], tuple(more["seeds"])))
        if len(self.calls) <= self.valid_from:
            return ["[is there a circle ?]"] * len(instructions)
        return super().instruct(images, instructions)


class Wordless(ShapesDomain):
    """A world whose specs tell nothing."""

    def questions(self, prompt: Prompt) -> list[Question]:
        return []


def _ask(model: CannedModel, origin: Any, domain: ShapesDomain = DOMAIN, retries: int = 3) -> PromptQuestions:
    found = questions_of([PROMPT, PROMPT], domain, model, origin=origin, retries=retries, seed_of=derived_seed)
    assert list(found) == [PROMPT.text]
    return found[PROMPT.text]


def test_the_spec_asks_without_the_model() -> None:
    model = Mumbling(99)
    assert list(_ask(model, "spec").questions) == DOMAIN.questions(PROMPT)
    assert model.calls == []


@pytest.mark.parametrize(("origin", "domain"), [("self", DOMAIN), ("spec", Wordless())])
def test_the_model_asks_where_it_must(origin: str, domain: ShapesDomain) -> None:
    model = Mumbling(0)
    asked = _ask(model, origin, domain)
    assert list(asked.questions) == DOMAIN.questions(PROMPT), "the canned model asks as the world does"
    assert asked.num_invalid == 0
    assert [temperature for temperature, _ in model.calls] == [0.0]
    assert len(model.calls[0][1]) == 1, "the same prompt is asked about once"


def test_invalid_lists_are_counted_and_drawn_again_each_with_another_seed() -> None:
    model = Mumbling(2)
    asked = _ask(model, "self")
    assert asked.num_invalid == 2
    assert asked.questions
    assert [temperature for temperature, _ in model.calls] == [0.0, 1.0, 1.0]
    assert len({seeds for _, seeds in model.calls}) == 3


def test_after_the_last_try_there_are_no_questions() -> None:
    assert _ask(Mumbling(99), "self", retries=2) == PromptQuestions((), 3)


@pytest.mark.parametrize(
    "value",
    [
        {"is it ?": 1},
        [],
        ["is there a circle"],
        [1],
        ["is it ?", "is it ?"],
        ["is it ?", " is it ? "],
        [f"is it {i} ?" for i in range(MOST_QUESTIONS + 1)],
    ],
)
def test_what_is_no_list_of_questions_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_questions(json.dumps(value))


def test_criteria_told_from_words_are_those_of_the_world() -> None:
    asked = {item.question for category in CATEGORIES for spec in all_specs(category) for item in questions(spec)}
    assert len(asked) > 200
    wrong = [question for question in asked if criterion_of(question.text) != question.criterion]
    assert wrong == []


@pytest.mark.parametrize(
    ("question", "criterion"),
    [
        ("Is there a dog?", "object"),
        ("Are there exactly 12 dogs?", "count"),
        ("Is the dog brown?", "attribute"),
        ("Is there a brown dog?", "attribute"),
        ("Is there something brown?", "color"),
        ("Is the dog in front of the house?", "position"),
        ("Is the old house made of wood?", "attribute"),
    ],
)
def test_criteria_of_other_worlds(question: str, criterion: str) -> None:
    assert criterion_of(question) == criterion
