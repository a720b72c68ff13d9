"""Assessments of the third revision survive the fourth one, up, down and up; new ones keep what they rest on."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError

from illume_db.migrate import downgrade, drift, upgrade
from illume_db.samples import NewAssessment, add_assessments, sample_detail
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Assessment
from tests.integration.db.test_revision_0003 import fill

DETAILS: dict[str, Any] = {
    "readings": {"yes-no": 1.5},
    "questions": [{"criterion": "object", "question": "is there a circle ?", "log_odds": 1.5}],
}
CRITIQUE = {"object": {"verdict": "yes", "evidence": "a circle"}, "analysis": "it shows a circle"}


@pytest.fixture
def old_url(empty_url: str) -> str:
    """A database at the third revision with one assessment."""
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection, settings='{"assess": {"assessor": "self"}}')
    upgrade(empty_url, "0003")
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO assessments (sample_id, assessor, model_version_id, state, score, failed_criteria)"
                " VALUES (1, 'self', 1, 'ok', -3.5, '[]')"
            )
        )
    engine.dispose()
    return empty_url


def _scores(url: str) -> list[tuple[Any, ...]]:
    engine = open_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT sample_id, assessor, state, score FROM assessments ORDER BY id"))
        found = [tuple(row) for row in rows]
    engine.dispose()
    return found


def test_up_down_up_keeps_the_rows(old_url: str) -> None:
    for step in (upgrade, lambda url: downgrade(url, "0003"), upgrade):
        step(old_url)
        assert _scores(old_url) == [(1, "self", "ok", -3.5)]
    assert drift(old_url) == []


def test_what_an_assessment_rests_on_is_kept(old_url: str) -> None:
    upgrade(old_url)
    engine = open_engine(old_url)
    with transaction(engine) as session:
        new = [
            NewAssessment(1, "frozen", "ok", 1.5, 1, details=DETAILS, critique=CRITIQUE, probability=0.8),
            NewAssessment(2, "self", "failed", None, 1, error="no answer"),
        ]
        add_assessments(session, new)
    with transaction(engine) as session:
        assert session.scalars(select(Assessment.sample_id).where(Assessment.critique.is_(None))).all() == [1, 2]
        shown = sample_detail(session, 1, 1)
        assert shown is not None
        old, frozen = shown["assessments"]
        assert (old["readings"], old["questions"], old["critique"], old["probability"]) == ({}, [], None, None)
        assert {key: frozen[key] for key in DETAILS} == DETAILS
        assert (frozen["critique"], frozen["probability"]) == (CRITIQUE, 0.8)
    engine.dispose()


def test_a_probability_is_one(old_url: str) -> None:
    upgrade(old_url)
    engine = open_engine(old_url)
    with pytest.raises(IntegrityError, match="ck_assessments_probability_is_one"), transaction(engine) as session:
        add_assessments(session, [NewAssessment(1, "frozen", "ok", 1.5, 1, probability=1.2)])
    engine.dispose()
