"""A teacher's written assessments: what is asked, which replies count, and what becomes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from PIL import Image

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.errors import TeacherUnclearError
from illume_loop.judge.teacher import ParsedAnswer, Teacher, fixed_budget
from illume_loop.judge.teacher_critiques import (
    MOST_EVIDENCE,
    PAPERS_CRITERIA,
    criteria_of,
    critique_asked,
    read,
    right_criteria,
)
from illume_loop.protocols import Prompt
from illume_loop.settings import TeacherSettings
from tests.support.stub_teacher import Reply, Status, StubTeacher, stub_teacher

RED = Image.new("RGB", (48, 48), "red")
CRITERIA = ("object", "color")
TOLD: dict[str, Any] = {
    "object": {"score": 5, "evidence": "a circle"},
    "color": {"score": 3, "evidence": "it is blue"},
    "analysis": "The circle is there but blue.",
}
CRITIQUE = {
    "object": {"verdict": "yes", "score": 5, "evidence": "a circle"},
    "color": {"verdict": "no", "score": 3, "evidence": "it is blue"},
    "analysis": "The circle is there but blue.",
}


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _told(reply: Reply, count: int = 1, **values: object) -> tuple[list[ParsedAnswer[Any]], StubTeacher]:
    with stub_teacher(reply) as stub:
        settings = TeacherSettings.model_validate({"url": stub.url, "model": "seer", "parallel": 1} | values)
        teacher = Teacher(settings, fixed_budget(settings.max_calls), lambda _: None)
        asks = [[critique_asked("a red circle", CRITERIA)]] * count
        return [one for of_image in teacher.told([RED] * count, asks) for one in of_image], stub


def test_scores_by_criterion_and_an_analysis_become_a_critique() -> None:
    [told], stub = _told(lambda *_: json.dumps(TOLD))
    assert told == ParsedAnswer(CRITIQUE, 0)
    assert right_criteria(CRITIQUE) == {"object": True, "color": False}
    [(_, _, body)] = stub.requests
    schema = body["response_format"]["json_schema"]
    assert (schema["name"], schema["strict"]) == ("assessment", True)
    assert schema["schema"]["required"] == [*CRITERIA, "analysis"]
    assert schema["schema"]["properties"]["object"]["properties"]["score"]["enum"] == [1, 2, 3, 4, 5]
    assert "The prompt: a red circle" in body["messages"][1]["content"][1]["text"]
    assert body["max_tokens"] == 2048


@pytest.mark.parametrize("score", [1, 2, 3, 4, 5])
def test_a_criterion_is_fulfilled_from_four_on(score: int) -> None:
    found = read(json.dumps(TOLD | {"color": {"score": score, "evidence": "blue"}}), CRITERIA)
    assert found is not None
    assert right_criteria(found)["color"] is (score >= 4)


@pytest.mark.parametrize(
    "around", ["%s", "```json\n%s\n```", "<think>{hm}</think>%s", "Here it is: %s", "%s\n", "\ufeff%s"]
)
def test_thoughts_fences_and_words_around_the_json_are_no_fault(around: str) -> None:
    assert read(around % json.dumps(TOLD, indent=1), CRITERIA) == CRITIQUE


def _without(*keys: str) -> dict[str, Any]:
    return {key: told for key, told in TOLD.items() if key not in keys}


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "it is fine",
        "<think>" + json.dumps(TOLD),
        json.dumps(TOLD)[:-1],
        json.dumps(TOLD) + json.dumps(TOLD),
        json.dumps(_without("analysis")),
        json.dumps(_without("color")),
        json.dumps(TOLD | {"mood": {"score": 5, "evidence": "x"}}),
        json.dumps(TOLD)[:-1] + ', "analysis": "twice"}',
        json.dumps(TOLD | {"color": 3}),
        json.dumps(TOLD | {"color": {"score": 3}}),
        json.dumps(TOLD | {"color": {"score": 3, "evidence": "x", "verdict": "no"}}),
        *(
            json.dumps(TOLD | {"color": {"score": score, "evidence": "x"}})
            for score in (0, 6, 4.5, 4.0, "4", True, None, float("nan"))
        ),
        *(
            json.dumps(TOLD | {"color": {"score": 4, "evidence": text}})
            for text in ("", " ", 7, "x" * (MOST_EVIDENCE + 1), "it ends</s>", "an <img> mark")
        ),
        json.dumps(TOLD | {"analysis": "<\uff5cend\u2581of\u2581sentence\uff5c>"}),
    ],
)
def test_a_reply_of_another_form_is_no_critique(said: str | None) -> None:
    assert read(said, CRITERIA) is None


def test_texts_come_on_one_line_that_a_database_can_hold() -> None:
    found = read(json.dumps(TOLD | {"analysis": " a\n\nb\u0000c \ud800 "}), CRITERIA)
    assert found is not None
    assert found["analysis"] == "a b c \ufffd"


def test_an_invalid_reply_is_asked_for_again_at_another_temperature_and_counted() -> None:
    [told], stub = _told(lambda number, *_: json.dumps(TOLD) if number == 3 else '{"object": 5}')
    assert told == ParsedAnswer(CRITIQUE, 2)
    assert [body["temperature"] for _, _, body in stub.requests] == [0.0, 1.0, 1.0]


def test_after_the_last_try_there_is_no_critique_and_a_count() -> None:
    told, stub = _told(lambda *_: "fine", retries=2)
    assert told == [ParsedAnswer(None, 3)]
    assert len(stub.requests) == 3


def test_a_teacher_that_writes_no_valid_assessment_at_all_is_told() -> None:
    with pytest.raises(TeacherUnclearError, match=r"none of 8 questions with the JSON of an assessment.*said: fine"):
        _told(lambda *_: "fine", count=8, retries=0)


def test_a_reply_that_was_cut_off_gets_more_room() -> None:
    def reply(number: int, *_: object) -> object:
        content = json.dumps(TOLD) if number == 2 else json.dumps(TOLD)[:20]
        choice = {"message": {"content": content}, "finish_reason": "stop" if number == 2 else "length"}
        return Status(200, json.dumps({"choices": [choice]}).encode())

    [told], stub = _told(reply)
    assert told == ParsedAnswer(CRITIQUE, 0)
    assert [body["max_tokens"] for _, _, body in stub.requests] == [2048, 8192]


def test_criteria_are_those_of_the_prompts_questions_or_the_papers() -> None:
    domain = ShapesDomain()
    prompt = domain.parse("a circle left of a ring")
    assert criteria_of(domain, prompt) == ("object", "count", "position")

    class Mute(ShapesDomain):
        def questions(self, prompt: Prompt) -> list[Any]:
            del prompt
            return []

    assert criteria_of(Mute(), prompt) == PAPERS_CRITERIA
