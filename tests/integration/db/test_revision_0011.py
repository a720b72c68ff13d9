"""The budget of calls to a teacher has a row of its own; what was spent before is kept, up and down and up."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text

from illume_db.migrate import downgrade, drift, upgrade
from illume_db.runs import acquire_leadership, renew_leadership
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Run
from illume_db.teacher import (
    forget_teacher_answers,
    keep_teacher_answer,
    num_teacher_calls,
    question_sha256,
    spend_teacher_call,
    teacher_answers,
    teacher_replies,
)
from tests.integration.db.test_revision_0003 import fill

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = "a" * 64


@pytest.fixture
def old_url(empty_url: str) -> str:
    """A database of the release before, whose run has spent three calls."""
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    upgrade(empty_url, "0009")
    with engine.begin() as connection:
        connection.execute(text("UPDATE runs SET teacher_calls = 3"))
    engine.dispose()
    return empty_url


@pytest.fixture
def now_engine(old_url: str) -> Iterator[Engine]:
    upgrade(old_url)
    engine = open_engine(old_url)
    yield engine
    engine.dispose()


def _spend(engine: Engine, max_calls: int) -> bool:
    with transaction(engine) as session:
        return spend_teacher_call(session, 1, max_calls)


def test_the_budget_is_one_for_all_processes_and_counts_what_was_spent_before(now_engine: Engine) -> None:
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(lambda _: _spend(now_engine, 10), range(25))) == 7
    with transaction(now_engine) as session:
        assert num_teacher_calls(session, 1) == 10
    assert _spend(now_engine, 11), "a raised budget goes on"


def test_up_down_up_keeps_what_was_spent(old_url: str) -> None:
    upgrade(old_url)
    engine = open_engine(old_url)
    assert _spend(engine, 10)
    engine.dispose()
    downgrade(old_url, "0009")
    engine = open_engine(old_url)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT teacher_calls FROM runs WHERE id = 1")) == 4
    engine.dispose()
    upgrade(old_url)
    assert drift(old_url) == []
    engine = open_engine(old_url)
    with transaction(engine) as session:
        assert num_teacher_calls(session, 1) == 4
    engine.dispose()


def test_a_call_is_paid_for_while_a_coordinator_holds_the_run(postgres_url: str) -> None:
    """A coordinator's transactions begin by changing the run's row, and last as long as a step of its takes."""
    upgrade(postgres_url)
    engine = open_engine(postgres_url)
    with transaction(engine) as session:
        session.add(Run(id=1, key="k", name="n", seed=0, settings={}, created_at=NOW))
    with transaction(engine) as session:
        token = acquire_leadership(session, 1, "coordinator", 60.0)
    assert token is not None
    with transaction(engine) as leading:
        renew_leadership(leading, 1, token, 60.0)
        with transaction(engine) as session:
            session.execute(text("SET LOCAL lock_timeout = 200"))
            assert spend_teacher_call(session, 1, 10)
            keep_teacher_answer(session, 1, IMAGE, "is there a ring?", None, at=NOW)
    engine.dispose()


def test_an_answer_is_kept_once_and_forgotten_with_its_assessment(now_engine: Engine) -> None:
    asked = "is there a ring?", "is it red?"
    with transaction(now_engine) as session:
        keep_teacher_answer(session, 1, IMAGE, asked[0], True, at=NOW)
        keep_teacher_answer(session, 1, IMAGE, asked[1], None, at=NOW)
    with transaction(now_engine) as session:
        keep_teacher_answer(session, 1, IMAGE, asked[0], False, at=NOW)
    with transaction(now_engine) as session:
        found = teacher_answers(session, 1, [IMAGE, "b" * 64])
        assert found == {(IMAGE, question_sha256(asked[0])): True, (IMAGE, question_sha256(asked[1])): None}
        forget_teacher_answers(session, 1, [IMAGE])
        assert teacher_answers(session, 1, [IMAGE]) == {}


def test_a_written_reply_is_kept_as_it_came_and_the_release_before_never_sees_it(now_engine: Engine) -> None:
    reply = {"value": {"object": {"score": 4}, "analysis": "a \u201ccircle\u201d"}, "num_invalid": 2}
    with transaction(now_engine) as session:
        keep_teacher_answer(session, 1, IMAGE, "assess it", None, at=NOW, reply=reply)
        keep_teacher_answer(session, 1, IMAGE, "is it red?", True, at=NOW)
    with transaction(now_engine) as session:
        assert teacher_replies(session, 1, [IMAGE]) == {(IMAGE, question_sha256("assess it")): reply}
    url = now_engine.url.render_as_string(hide_password=False)
    downgrade(url, "0013")
    with now_engine.connect() as connection:
        rows = connection.execute(text("SELECT question_sha256, answer FROM teacher_answers")).all()
    assert [(name, bool(answer)) for name, answer in rows] == [(question_sha256("is it red?"), True)]
    upgrade(url)
    assert drift(url) == []
