"""What the database refuses about model versions and rounds to run again, up, down and up, whatever it held before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from illume_db.migrate import downgrade, drift, upgrade
from illume_db.sessions import open_engine
from illume_db.tables.versions import VERSION_STATES

BEFORE = "0009"
NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
MOVES = {
    ("candidate", "active"),
    ("candidate", "rejected"),
    ("active", "retired"),
    ("rejected", "active"),
    ("retired", "active"),
}
OPEN, OVER = ("planned", "training", "gating"), ("promoted", "rejected", "failed", "cancelled")


def _fill(connection: Connection, states: tuple[str, ...]) -> None:
    """Make a run with versions of these states, and a round that has ended."""
    connection.execute(
        text(f"INSERT INTO runs (id, key, name, seed, settings, created_at) VALUES (1, 'k', 'n', 0, '{{}}', '{NOW}')")
    )
    for number, state in enumerate(states, start=1):
        _add_version(connection, state, number)
    _add_round(connection, 1, "failed")


def _add_version(connection: Connection, state: str, number: int = 2) -> None:
    connection.execute(
        text(
            "INSERT INTO model_versions (id, run_id, number, state, sha256, num_bytes, origin, created_at)"
            f" VALUES ({number}, 1, {number}, '{state}', '{'0' * 64}', 1, 'o', '{NOW}')"
        )
    )


def _add_round(connection: Connection, index: int, state: str, **more: object) -> None:
    values = {"candidate_version_id": "NULL", **more}
    connection.execute(
        text(
            'INSERT INTO rounds (id, run_id, "index", state, parent_version_id, drawing_version_id, staleness, error,'
            f" num_samples, num_accepted, created_at, {', '.join(values)}) VALUES"
            f" ({index}, 1, {index}, '{state}', 1, 1, 0, 'why', 0, 0, '{NOW}', {', '.join(map(str, values.values()))})"
        )
    )


@pytest.fixture
def connection(empty_url: str) -> Iterator[Connection]:
    """A run with an active base, at the newest schema."""
    upgrade(empty_url)
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        _fill(connection, ("active",))
        yield connection
    engine.dispose()


def _refuses(connection: Connection, statement: str, match: str) -> None:
    with pytest.raises(DBAPIError, match=match), connection.begin_nested():
        connection.execute(text(statement))


def test_versions_move_as_allowed_and_in_no_other_way(connection: Connection) -> None:
    for current, target in product(VERSION_STATES, VERSION_STATES):
        with connection.begin_nested() as change:
            connection.execute(text("UPDATE model_versions SET state = 'retired' WHERE id = 1 AND state = 'active'"))
            _add_version(connection, current)
            move = f"UPDATE model_versions SET state = '{target}' WHERE id = 2"
            if current == target or (current, target) in MOVES:
                connection.execute(text(move))
            else:
                _refuses(connection, move, "versions_move_as_allowed")
            change.rollback()


@pytest.mark.parametrize("state", [*OPEN, *OVER])
def test_a_version_under_trial_stays_until_its_round_has_ended(connection: Connection, state: str) -> None:
    _add_version(connection, "candidate")
    _add_round(connection, 2, state, candidate_version_id=2)
    change = "UPDATE model_versions SET state = 'rejected' WHERE id = 2"
    if state in OPEN:
        _refuses(connection, change, "versions_under_trial_stay")
        _refuses(connection, "DELETE FROM model_versions WHERE id = 2", "versions_in_use_are_kept")
    else:
        connection.execute(text(change))


def test_an_active_version_is_never_deleted_and_an_unused_one_may_be(connection: Connection) -> None:
    _add_version(connection, "rejected")
    _refuses(connection, "DELETE FROM model_versions WHERE id = 1", "versions_in_use_are_kept")
    assert connection.execute(text("DELETE FROM model_versions WHERE id = 2")).rowcount == 1


def test_only_rounds_that_have_ended_without_a_decision_are_run_again(connection: Connection) -> None:
    _add_round(connection, 2, "gating")
    ask = f"UPDATE rounds SET retry_requested_at = '{NOW}' WHERE id = "
    _refuses(connection, f"{ask}2", "rounds_to_retry_have_ended")
    for asked in (False, True):
        if asked:
            connection.execute(text(f"{ask}1"))
            _add_round(connection, 3, "planned", retry_of_id=1)
        else:
            with pytest.raises(DBAPIError, match="rounds_retry_what_was_asked"), connection.begin_nested():
                _add_round(connection, 3, "planned", retry_of_id=1)
    with pytest.raises(DBAPIError, match=r"(?i)unique"), connection.begin_nested():
        _add_round(connection, 4, "planned", retry_of_id=1)


def test_a_run_that_lost_its_active_version_goes_up_and_down_as_it_is(empty_url: str) -> None:
    upgrade(empty_url, BEFORE)
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        _fill(connection, ("retired", "rejected", "candidate"))
    for step in (upgrade, lambda url: downgrade(url, BEFORE), upgrade):
        engine.dispose()
        step(empty_url)
        assert _states(engine) == ["retired", "rejected", "candidate"]
    engine.dispose()
    assert drift(empty_url) == []


def _states(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT state FROM model_versions ORDER BY id")))
