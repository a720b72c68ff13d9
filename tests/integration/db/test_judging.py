"""How judges fared, counted by the database: on both kinds of it, since both read inside of JSON."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from illume_db.judging import AssessmentCounts, controls, count_assessments, next_prompts
from illume_db.migrate import upgrade
from illume_db.samples import NewAssessment, add_assessments
from illume_db.sessions import open_engine, transaction
from tests.integration.db.test_revision_0003 import fill


@pytest.fixture
def filled(empty_url: str) -> Iterator[Engine]:
    """One round with three samples of one prompt."""
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    upgrade(empty_url)
    yield engine
    engine.dispose()


def test_what_became_of_the_samples_is_counted(filled: Engine) -> None:
    with transaction(filled) as session:
        assert count_assessments(session, 1, "self") == AssessmentCounts(0, 0, 0, 0, None)
        new = [
            NewAssessment(1, "self", "ok", 1.0, 1, details={"invalid_critiques": 1}),
            NewAssessment(2, "self", "failed", None, 1, error="mute", details={"invalid_questions": 4}),
            NewAssessment(3, "self", "abstained", None, 1, details={"readings": {}}),
            NewAssessment(1, "frozen", "failed", None, 1, error="blind"),
            NewAssessment(1, "checker", "ok", 1.0),
        ]
        add_assessments(session, new)
    with transaction(filled) as session:
        assert count_assessments(session, 1, "self") == AssessmentCounts(1, 1, 1, 2, "mute")
        assert count_assessments(session, 1, "frozen") == AssessmentCounts(0, 0, 1, 0, "blind")
        assert count_assessments(session, 1, "checker") == AssessmentCounts(1, 0, 0, 0, None)
        assert count_assessments(session, 2, "self") == AssessmentCounts(0, 0, 0, 0, None), "of another round"


def test_the_commonest_error_is_told(filled: Engine) -> None:
    with transaction(filled) as session:
        errors = ["blind", "mute", "mute"]
        add_assessments(
            session, [NewAssessment(i + 1, "self", "failed", None, 1, error=errors[i]) for i in range(len(errors))]
        )
        assert count_assessments(session, 1, "self").error == "mute"


def test_controls_are_those_with_both_numbers(filled: Engine) -> None:
    with transaction(filled) as session:
        new = [
            NewAssessment(1, "self", "ok", 1.0, 1, details={"readings": {"yes-no": 2.5}, "control": -1.25}),
            NewAssessment(2, "self", "ok", 1.0, 1, details={"readings": {"yes-no": 2.5}}),
            NewAssessment(3, "self", "failed", None, 1, details={"readings": {"yes-no": None}, "control": 1.0}),
            NewAssessment(1, "frozen", "ok", 1.0, 1, details={"readings": {"yes-no": 1}, "control": None}),
        ]
        add_assessments(session, new)
        assert controls(session, 1, "self") == [(2.5, -1.25)]
        assert controls(session, 1, "frozen") == []


def test_the_only_prompt_comes_after_itself(filled: Engine) -> None:
    with transaction(filled) as session:
        assert {position: prompt.id for position, prompt in next_prompts(session, 1, [0]).items()} == {0: 1}
