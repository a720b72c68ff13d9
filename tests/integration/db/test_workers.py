"""What workers tell of themselves, and what is waiting for them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update
from sqlalchemy.exc import IntegrityError

from illume_db.clock import db_time_in
from illume_db.leases import last_worker, lease_unit
from illume_db.prompts import PromptRow, ensure_prompts
from illume_db.rounds import add_round, move_round
from illume_db.runs import acquire_leadership, add_event, add_run, num_unattended, release_leadership
from illume_db.sessions import transaction
from illume_db.tables import ModelVersion, Round, Run, Unit, Worker
from illume_db.units import NewUnit, add_units
from illume_db.versions import add_version
from illume_db.workers import (
    GONE_KEPT_S,
    MAX_GONE_ROWS,
    beat,
    live_workers,
    mark_stopped,
    queue_table,
    register_worker,
    request_drain,
    workers_table,
)

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
        session.execute(update(Worker).values(heartbeat_at=db_time_in(-100), progress_at=db_time_in(-100)))
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
        session.execute(update(Worker).where(Worker.name == "b").values(heartbeat_at=db_time_in(-100)))
    assert live("sample") == 0
    assert live("sample", 200) == 1


def _age(engine: Engine, name: str, seconds: float) -> None:
    with transaction(engine) as session:
        session.execute(update(Worker).where(Worker.name == name).values(heartbeat_at=db_time_in(-seconds)))


def _states(engine: Engine) -> dict[str, str]:
    with transaction(engine) as session:
        return {row["name"]: row["state"] for row in workers_table(session)}


def test_a_worker_that_is_silent_for_too_long_is_lost(engine: Engine) -> None:
    _register(engine, "quick", "generator")
    with transaction(engine) as session:
        for name in ("slow", "ended"):
            register_worker(session, name=name, host="h", pid=7, roles=["trainer"], device="cpu", heartbeat_s=60)
        mark_stopped(session, "ended", "stopped")
    for name in ("quick", "slow", "ended"):
        _age(engine, name, 100)
    assert _states(engine) == {"quick": "lost", "slow": "running", "ended": "stopped"}
    _age(engine, "slow", 200)
    assert _states(engine)["slow"] == "lost"
    with transaction(engine) as session:
        last = last_worker(session, "generator")
        assert last is not None
        assert last["state"] == "lost"
    _beat(engine, "quick")
    assert _states(engine)["quick"] == "running", "it was only cut off"


def test_workers_that_are_long_gone_are_forgotten(engine: Engine) -> None:
    for name in ("lost", "stopped", "lately", "working"):
        _register(engine, name, "generator")
    with transaction(engine) as session:
        for name in ("stopped", "lately"):
            mark_stopped(session, name, "stopped")
    for name in ("lost", "stopped"):
        _age(engine, name, GONE_KEPT_S + 60)
    _age(engine, "lately", GONE_KEPT_S - 60)
    _register(engine, "new", "trainer")
    assert _states(engine) == {"lately": "stopped", "working": "running", "new": "running"}


def test_of_many_workers_that_crashed_the_last_ones_are_kept(engine: Engine) -> None:
    _register(engine, "working", "generator")
    for number in range(MAX_GONE_ROWS + 5):
        _register(engine, f"crashed-{number}", "generator")
        with transaction(engine) as session:
            mark_stopped(session, f"crashed-{number}", "unhealthy")
    _register(engine, "new", "generator")
    states = _states(engine)
    assert len(states) == MAX_GONE_ROWS + 2
    assert {"working", "new", f"crashed-{MAX_GONE_ROWS + 4}"} <= states.keys()
    assert "crashed-0" not in states


def _run(engine: Engine, key: str, *, executor: str = "celery", rounds: int = 1, days_ago: int = 0) -> None:
    with transaction(engine) as session:
        settings = {"run": {"executor": executor, "rounds": rounds}}
        run = add_run(session, key=key, name=key, seed=0, settings=settings, at=NOW)
        add_event(session, run.id, "started", "run started", at=datetime.now(UTC) - timedelta(days=days_ago))


def test_runs_without_a_coordinator_are_counted_until_they_are_finished(engine: Engine) -> None:
    def count() -> int:
        with transaction(engine) as session:
            return num_unattended(session)

    _run(engine, "inline", executor="inline")
    _run(engine, "left", days_ago=2)
    assert count() == 0
    _run(engine, "served")
    assert count() == 1
    with transaction(engine) as session:
        run_id = session.scalars(select(Run.id).where(Run.key == "served")).one()
        token = acquire_leadership(session, run_id, "me", 60.0)
        assert token is not None
    assert count() == 0
    with transaction(engine) as session:
        release_leadership(session, run_id, token)
        add_version(session, run_id, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW)
        ids = ensure_prompts(session, run_id, [PromptRow("train", "key", "c", "t", {})])
        version_id = session.scalars(select(ModelVersion.id).where(ModelVersion.run_id == run_id)).one()
        add_round(session, run_id, 1, parent_version_id=version_id, prompt_ids=ids, at=NOW)
        round_id = session.scalars(select(Round.id).where(Round.run_id == run_id)).one()
    assert count() == 1
    with transaction(engine) as session:
        move_round(session, round_id, "planned", "cancelled")
    assert count() == 0, "nobody has to look after a run that has ended"


def test_states_of_workers_are_known(engine: Engine) -> None:
    _register(engine, "a", "generator")
    with pytest.raises(IntegrityError, match="state_known"):
        _beat(engine, "a", state="asleep")


def test_queues_tell_what_waits_and_since_when(engine: Engine) -> None:
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)
        add_version(session, 1, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW)
        ids = ensure_prompts(session, 1, [PromptRow("train", "key", "c", "t", {})])
        add_round(session, 1, 1, parent_version_id=1, prompt_ids=ids, at=NOW)
        units = [NewUnit("sample", f"sample/{i}", {}, (i, i + 1), 1) for i in range(3)]
        add_units(session, 1, [*units, NewUnit("assess", "assess/0", {}, (0, 3), 3), NewUnit("evaluate", "e", {})])
        session.execute(update(Unit).where(Unit.id == 2).values(ready_at=db_time_in(-100)))
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
