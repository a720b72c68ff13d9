"""The heartbeat of a worker, on real databases and a clock that the test moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, update
from sqlalchemy.pool import QueuePool

from illume_db.leases import Lease, hand_back, lease_unit
from illume_db.prompts import PromptRow, ensure_prompts
from illume_db.rounds import add_round
from illume_db.runs import add_run
from illume_db.sessions import transaction
from illume_db.tables import Unit
from illume_db.units import NewUnit, add_units, mark_issued
from illume_db.versions import add_version
from illume_db.workers import register_worker, request_drain, workers_table
from illume_loop.errors import LostLeaseError
from illume_loop.settings import ClusterSettings
from illume_workers.heartbeat import Heartbeat

NAME = "worker"
SETTINGS = ClusterSettings(lease_s=60, heartbeat_s=5, stall_after_s=100, drain_deadline_s=30, reconnect_s=20)


@dataclass
class Told:
    """What the heartbeat did to its process."""

    stopped: int = 0
    ended: list[int] = field(default_factory=list)
    now: float = 1000.0

    def stop(self) -> None:
        self.stopped += 1


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def heartbeat(engine: Engine, told: Told) -> Heartbeat:
    with transaction(engine) as session:
        register_worker(session, name=NAME, host="here", pid=1, roles=["generator"], device="cpu")
    return Heartbeat(engine, NAME, SETTINGS, {"sample"}, stop=told.stop, end=told.ended.append, clock=lambda: told.now)


@pytest.fixture
def lease(engine: Engine) -> Lease:
    with transaction(engine) as session:
        run = add_run(session, key="k", name="n", seed=0, settings={}, at=datetime.now(UTC))
        at = datetime.now(UTC)
        version = add_version(
            session, run.id, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=at
        )
        ids = ensure_prompts(session, run.id, [PromptRow("train", "key", "c", "t", {})])
        round_ = add_round(session, run.id, 1, parent_version_id=version.id, prompt_ids=ids, at=at)
        add_units(session, round_.id, [NewUnit("sample", "sample/0", {}, (0, 8), 8)])
        unit_id = session.scalars(select(Unit.id)).one()
        lease = lease_unit(session, unit_id, NAME, token=0, lease_s=60)
    assert lease is not None
    return lease


def _row(engine: Engine) -> dict[str, Any]:
    with transaction(engine) as session:
        return workers_table(session)[0]


def _unit(engine: Engine) -> Unit:
    with transaction(engine) as session:
        return session.scalars(select(Unit)).one()


def _expiry(engine: Engine) -> datetime:
    expires_at = _unit(engine).lease_expires_at
    assert expires_at is not None
    return expires_at


def test_a_lease_is_renewed_for_items_and_not_for_time(engine: Engine, heartbeat: Heartbeat, lease: Lease) -> None:
    heartbeat.took(lease)
    before = _expiry(engine)
    heartbeat.beat()
    assert _expiry(engine) == before
    assert _row(engine)["unit"] == "sample/0"
    heartbeat.advanced(3, 8)
    heartbeat.beat()
    renewed = _expiry(engine)
    assert renewed > before
    assert (_unit(engine).items_done, _row(engine)["items_done"]) == (3, 3)
    heartbeat.beat()
    assert _expiry(engine) == renewed


def test_a_lost_lease_ends_the_work_at_the_next_item(engine: Engine, heartbeat: Heartbeat, lease: Lease) -> None:
    heartbeat.took(lease)
    with transaction(engine) as session:
        hand_back(session, lease)
    heartbeat.advanced(1, 8)
    heartbeat.beat()
    with pytest.raises(LostLeaseError, match="sample/0"):
        heartbeat.advanced(2, 8)


def test_a_worker_that_hangs_hands_its_unit_back_and_ends(
    engine: Engine, heartbeat: Heartbeat, lease: Lease, told: Told
) -> None:
    heartbeat.took(lease)
    told.now += 99
    heartbeat.beat()
    assert told.ended == []
    told.now += 2
    heartbeat.beat()
    assert told.ended == [3]
    assert (_unit(engine).state, _unit(engine).attempts) == ("pending", 0)
    assert (_row(engine)["state"], _row(engine)["unit"]) == ("unhealthy", None)


@pytest.mark.parametrize(
    "progress", [lambda heartbeat: heartbeat.advanced(1, 8), lambda heartbeat: heartbeat.uses("v0002")]
)
def test_items_and_a_loaded_model_are_progress(
    heartbeat: Heartbeat, lease: Lease, told: Told, progress: Callable[[Heartbeat], None]
) -> None:
    heartbeat.took(lease)
    told.now += 99
    progress(heartbeat)
    told.now += 99
    heartbeat.beat()
    assert told.ended == []


def test_asked_to_drain_it_takes_no_more_and_is_gone_by_the_deadline(
    engine: Engine, heartbeat: Heartbeat, lease: Lease, told: Told
) -> None:
    heartbeat.took(lease)
    with transaction(engine) as session:
        assert request_drain(session, NAME)
    heartbeat.beat()
    assert (told.stopped, told.ended) == (1, [])
    heartbeat.beat()
    assert _row(engine)["state"] == "draining"
    told.now += 31
    heartbeat.beat()
    assert told.ended == [0]
    assert (_unit(engine).state, _unit(engine).attempts, _row(engine)["state"]) == ("pending", 0, "stopped")


def test_an_idle_worker_whose_units_are_sent_in_vain_is_deaf(
    engine: Engine, heartbeat: Heartbeat, lease: Lease, told: Told
) -> None:
    with transaction(engine) as session:
        hand_back(session, lease)
    told.now += 101
    heartbeat.beat()
    assert told.ended == [], "nothing was sent"
    long_ago, lately = (datetime.now(UTC) - timedelta(seconds=seconds) for seconds in (200, 10))
    with transaction(engine) as session:
        mark_issued(session, [lease.unit_id])
        session.execute(update(Unit).values(ready_at=long_ago, issued_at=lately))
    heartbeat.beat()
    assert told.ended == [3]
    assert _row(engine)["state"] == "unhealthy"


def test_whatever_was_finished_renews_the_lease(engine: Engine, heartbeat: Heartbeat, lease: Lease) -> None:
    """A batch, a file and a stage of a load are no items, and an item may take many of them."""
    heartbeat.took(lease)
    before = _expiry(engine)
    heartbeat.progressed()
    heartbeat.beat()
    renewed = _expiry(engine)
    assert renewed > before
    assert _unit(engine).items_done == 0
    heartbeat.beat()
    assert _expiry(engine) == renewed, "nothing more was finished"


def test_a_lost_lease_ends_the_work_at_the_next_batch(engine: Engine, heartbeat: Heartbeat, lease: Lease) -> None:
    heartbeat.progressed()  # between two units there is nothing to renew
    heartbeat.took(lease)
    with transaction(engine) as session:
        hand_back(session, lease)
    heartbeat.progressed()
    heartbeat.beat()
    with pytest.raises(LostLeaseError, match="sample/0"):
        heartbeat.progressed()


def _without_workers(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE workers RENAME TO away")


def test_a_busy_worker_waits_for_its_database_as_long_as_its_lease(
    heartbeat: Heartbeat, lease: Lease, told: Told, engine: Engine
) -> None:
    heartbeat.took(lease)
    _without_workers(engine)
    told.now += 59
    heartbeat.beat()
    assert told.ended == []
    told.now += 2
    heartbeat.beat()
    assert told.ended == [3]


def test_an_idle_worker_waits_for_its_database_as_long_as_it_is_told_to(
    heartbeat: Heartbeat, told: Told, engine: Engine
) -> None:
    _without_workers(engine)
    told.now += 19
    heartbeat.beat()
    assert told.ended == []
    told.now += 2
    heartbeat.beat()
    assert told.ended == [3]


def test_waiting_for_the_database_is_no_lack_of_progress(
    heartbeat: Heartbeat, lease: Lease, told: Told, engine: Engine
) -> None:
    heartbeat.took(lease)
    told.now += 90
    heartbeat.beat()
    _without_workers(engine)
    told.now += 15
    heartbeat.beat()
    assert told.ended == [], "15 of these 105 s were the database's"
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO workers")
    told.now += 11
    heartbeat.beat()
    assert told.ended == [3], "a worker that hangs ends, however often its database is away"


def test_no_error_ends_the_heartbeat(engine: Engine, heartbeat: Heartbeat, lease: Lease, told: Told) -> None:
    """The pool is empty, which is no error of the driver's: the next beat is due all the same."""
    heartbeat.took(lease)
    heartbeat.progressed()
    before = _expiry(engine)
    exhausted = create_engine(engine.url, poolclass=QueuePool, pool_size=1, max_overflow=0, pool_timeout=0.01)
    heartbeat._engine, own = exhausted, heartbeat._engine
    with exhausted.connect():
        heartbeat.beat()
        told.now += 61
        heartbeat.beat()
    assert told.ended == [3], "it could not beat for longer than its lease"
    exhausted.dispose()
    heartbeat._engine = own
    heartbeat.beat()
    assert _expiry(engine) > before


def test_a_drain_ends_although_nothing_else_works(
    engine: Engine, heartbeat: Heartbeat, lease: Lease, told: Told
) -> None:
    heartbeat.took(lease)
    heartbeat.drain()
    engine.dispose()
    heartbeat._engine = create_engine("sqlite:///:memory:")
    told.now += 31
    heartbeat.beat()
    assert told.ended == [0]


def test_beats_come_within_the_lease_however_seldom_they_are_set(heartbeat: Heartbeat, lease: Lease) -> None:
    heartbeat._settings = SETTINGS.model_copy(update={"heartbeat_s": 3600.0})
    assert heartbeat._pause() == 3600
    heartbeat.took(lease)
    assert heartbeat._pause() == 20
