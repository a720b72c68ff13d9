"""A unit's result is taken once, from the holder of the present lease."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from db.errors import FencedOutError
from db.queries.progress import units_of
from db.sessions import transaction
from db.writes.rounds import add_round
from db.writes.runs import NewPrompt, add_run, ensure_prompts
from db.writes.units import NewUnit, add_units, fail_attempt, finish_unit, lease_unit, take_back_leases
from db.writes.versions import add_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
UNIT = 1


@pytest.fixture(autouse=True)
def _planned_unit(engine: Engine) -> None:
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)
        add_version(session, 1, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW)
        ids = ensure_prompts(session, 1, [NewPrompt("train", "key", "c", "t", {})])
        add_round(session, 1, 1, parent_version_id=1, prompt_ids=ids, at=NOW)
        add_units(session, 1, [NewUnit("train", "train", {"a": 1})])


def _state(engine: Engine) -> tuple[str, int, str | None]:
    with transaction(engine) as session:
        (unit,) = units_of(session, 1)
        return unit.state, unit.attempts, unit.error


def test_a_unit_is_leased_once(engine: Engine) -> None:
    with transaction(engine) as session:
        lease = lease_unit(session, UNIT, "me")
        assert lease is not None
        assert (lease.kind, lease.payload, lease.attempts) == ("train", {"a": 1}, 0)
    with transaction(engine) as session:
        assert lease_unit(session, UNIT, "you") is None
        finish_unit(session, lease, 1.5)
    assert _state(engine) == ("done", 0, None)
    with transaction(engine) as session:
        assert lease_unit(session, UNIT, "you") is None


def test_who_lost_the_lease_cannot_deliver(engine: Engine) -> None:
    with transaction(engine) as session:
        dead = lease_unit(session, UNIT, "dead")
        assert dead is not None
        assert take_back_leases(session, 1) == 1
        assert take_back_leases(session, 1) == 0
        alive = lease_unit(session, UNIT, "alive")
        assert alive is not None
        assert alive.token > dead.token
    for late in (lambda session: finish_unit(session, dead, 1.0), lambda session: fail_attempt(session, dead, "e", 1)):
        with pytest.raises(FencedOutError, match="train"), transaction(engine) as session:
            late(session)
    with transaction(engine) as session:
        finish_unit(session, alive, 1.0)
    assert _state(engine) == ("done", 0, None)


def test_attempts_are_capped(engine: Engine) -> None:
    for attempt, state in ((1, "pending"), (2, "pending"), (3, "dead")):
        with transaction(engine) as session:
            lease = lease_unit(session, UNIT, "me")
            assert lease is not None
            assert fail_attempt(session, lease, f"error {attempt}", 3) == state
        assert _state(engine) == (state, attempt, f"error {attempt}")
    with transaction(engine) as session:
        assert lease_unit(session, UNIT, "me") is None


def test_a_kill_is_not_an_attempt(engine: Engine) -> None:
    for _ in range(5):
        with transaction(engine) as session:
            assert lease_unit(session, UNIT, "killed") is not None
        with transaction(engine) as session:
            take_back_leases(session, 1)
    assert _state(engine) == ("pending", 0, None)
