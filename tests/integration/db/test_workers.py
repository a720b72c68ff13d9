"""What workers tell of themselves, and what is waiting for them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, update
from sqlalchemy.exc import IntegrityError

from db.clock import db_later
from db.models import Unit, Worker
from db.queries.workers import live_workers, queue_table, workers_table
from db.sessions import transaction
from db.writes.rounds import add_round, move_round
from db.writes.runs import NewPrompt, add_run, ensure_prompts
from db.writes.units import NewUnit, add_units, lease_unit
from db.writes.versions import add_version
from db.writes.workers import beat, mark_stopped, register_worker, request_drain

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _register(engine: Engine, name: str, *roles: str) -> None:
    with transaction(engine) as session:
        register_worker(session, name=name, host="h", pid=7, roles=roles, device="cpu")


def _beat(engine: Engine, name: str, *, state: str = "running", progressed: bool = True) -> bool:
    with transaction(engine) as session:
        return beat(
            session, name, state=state, unit_key="sample/0", items_done=5, model_version="v0002", progressed=progressed
        )


def test_a_worker_is_seen_as_it_tells(engine: Engine) -> None:
    _register(engine, "a", "generator", "assessor")
    with transaction(engine) as session:
        session.execute(update(Worker).values(heartbeat_at=db_later(-100), progress_at=db_later(-100)))
    assert not _beat(engine, "a", progressed=False)
    with transaction(engine) as session:
        (row,) = workers_table(session)
    ages = row.pop("heartbeat_age_s"), row.pop("progress_age_s")
    assert 0 <= ages[0] < 50 < ages[1] < 200
    assert row == {
        "name": "a",
        "role": "generator+assessor",
        "host": "h",
        "pid": 7,
        "device": "cpu",
        "model_version": "v0002",
        "items_done": 5,
        "state": "running",
        "drain_requested": False,
        "unit": "sample/0",
    }
    assert not _beat(engine, "a")
    with transaction(engine) as session:
        assert workers_table(session)[0]["progress_age_s"] < 50
        mark_stopped(session, "a", "unhealthy")
        (row,) = workers_table(session)
    assert (row["state"], row["unit"]) == ("unhealthy", None)


def test_a_worker_of_the_same_name_takes_the_place(engine: Engine) -> None:
    _register(engine, "a", "generator")
    with transaction(engine) as session:
        assert request_drain(session, "a")
    _register(engine, "a", "trainer")
    with transaction(engine) as session:
        (row,) = workers_table(session)
    assert (row["role"], row["drain_requested"], row["items_done"]) == ("trainer", False, 0)


def test_drain_is_told_with_the_next_heartbeat(engine: Engine) -> None:
    _register(engine, "a", "generator")
    with transaction(engine) as session:
        assert not request_drain(session, "b")
        assert request_drain(session, "a")
    assert _beat(engine, "a")
    with transaction(engine) as session:
        mark_stopped(session, "a", "stopped")
        assert not request_drain(session, "a")
    assert not _beat(engine, "nobody")


def test_only_workers_that_would_take_a_unit_count(engine: Engine) -> None:
    def live(kind: str, max_age_s: float = 60.0) -> int:
        with transaction(engine) as session:
            return live_workers(session, kind, max_age_s)

    for name, roles in {"a": ["generator"], "b": ["generator", "assessor"], "c": ["trainer"]}.items():
        _register(engine, name, *roles)
    assert [live(kind) for kind in ("sample", "assess", "evaluate", "train")] == [2, 1, 1, 1]
    assert live("sample", -1.0) == 0
    with transaction(engine) as session:
        request_drain(session, "a")
        mark_stopped(session, "c", "stopped")
    assert [live(kind) for kind in ("sample", "assess", "evaluate", "train")] == [1, 1, 1, 0]
    with transaction(engine) as session:
        session.execute(update(Worker).where(Worker.name == "b").values(heartbeat_at=db_later(-100)))
    assert live("sample") == 0
    assert live("sample", 200) == 1


def test_states_of_workers_are_known(engine: Engine) -> None:
    _register(engine, "a", "generator")
    with pytest.raises(IntegrityError, match="state_known"):
        _beat(engine, "a", state="asleep")


def test_queues_tell_what_waits_and_since_when(engine: Engine) -> None:
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)
        add_version(session, 1, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW)
        ids = ensure_prompts(session, 1, [NewPrompt("train", "key", "c", "t", {})])
        add_round(session, 1, 1, parent_version_id=1, prompt_ids=ids, at=NOW)
        units = [NewUnit("sample", f"sample/{i}", {}, (i, i + 1), 1) for i in range(3)]
        add_units(session, 1, [*units, NewUnit("assess", "assess/0", {}, (0, 3), 3), NewUnit("evaluate", "e", {})])
        session.execute(update(Unit).where(Unit.id == 2).values(ready_at=db_later(-100)))
        assert lease_unit(session, 3, "me") is not None
    with transaction(engine) as session:
        table = {row["role"]: row for row in queue_table(session, 1)}
        assert [row["depth"] for row in queue_table(session)] == [row["depth"] for row in table.values()]
        assert [row["depth"] for row in queue_table(session, 2)] == [0, 0, 0]
    assert (table["generator"]["depth"], table["generator"]["leased"]) == (2, 1)
    assert 50 < table["generator"]["oldest_age_s"] < 200
    assert (table["assessor"]["depth"], table["assessor"]["leased"]) == (1, 0), "the assessment has no rows yet"
    assert table["trainer"] == {"role": "trainer", "depth": 0, "leased": 0, "oldest_age_s": None}
    with transaction(engine) as session:
        move_round(session, 1, "planned", "cancelled")
        assert [row["depth"] for row in queue_table(session)] == [0, 0, 0], "nothing waits in a round that has ended"
