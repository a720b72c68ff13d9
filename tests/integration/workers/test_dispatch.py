"""Who is sent what: as much as the live workers of a role have room for, and again what nobody took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy import Engine, select, update

from illume_db.clock import db_time_in
from illume_db.errors import FencedOutError
from illume_db.leases import finish_unit, lease_unit, renew_lease
from illume_db.prompts import PromptRow, ensure_prompts
from illume_db.rounds import add_round
from illume_db.runs import add_run
from illume_db.sessions import transaction
from illume_db.tables import Event, Unit, Worker
from illume_db.units import NewUnit, UnitRow, add_units
from illume_db.versions import add_version
from illume_db.workers import mark_stopped, register_worker
from illume_loop.errors import StageStalledError
from illume_loop.loop.context import RunContext, utc_now
from illume_loop.loop.coordinator import StageProgress
from illume_loop.loop.reconcile import Issue
from illume_loop.settings import load_settings
from illume_workers.dispatch import Dispatcher
from illume_workers.leadership import Leadership

DRAW = [Issue(1, ("assess", "sample"))]
SETTINGS = load_settings(
    None, {"cluster.units_per_worker": 2, "cluster.reissue_after_s": 30, "cluster.stage_deadline_s": 50}, environ={}
)


class Wire:
    """Remembers what was sent; may be cut."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []
        self.cut = False

    def send(self, units: Sequence[UnitRow]) -> Sequence[UnitRow]:
        if self.cut:
            return []
        self.sent += [(unit.key, unit.token) for unit in units]
        return units


class Service:
    """A round of ten drawings and two assessments, and a leader that dispatches them."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.wire, self.now = engine, Wire(), 0.0
        at = datetime.now(UTC)
        with transaction(engine) as session:
            run = add_run(session, key="k", name="n", seed=0, settings={}, at=at)
            version = add_version(
                session, run.id, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=at
            )
            ids = ensure_prompts(session, run.id, [PromptRow("train", "key", "c", "t", {})])
            round_ = add_round(session, run.id, 1, parent_version_id=version.id, prompt_ids=ids, at=at)
            draw = [NewUnit("sample", f"sample/{i}", {}, (i, i + 1), 1) for i in range(10)]
            judge = [NewUnit("assess", f"assess/{i}", {}, (i, i + 5), 5) for i in (0, 5)]
            add_units(session, round_.id, draw + judge)
        context = SimpleNamespace(engine=engine, run_id=run.id, settings=SETTINGS, clock=utc_now)
        self.leadership = Leadership(engine, run.id, 15)
        assert self.leadership.acquire()
        self.stages: list[StageProgress] = []
        self.dispatcher = Dispatcher(
            cast("RunContext", context), self.leadership, self.wire, self.stages.append, 1, clock=lambda: self.now
        )

    def add_worker(self, name: str, *roles: str) -> None:
        with transaction(self.engine) as session:
            register_worker(session, name=name, host="h", pid=1, roles=roles, device="cpu")

    def issue(self) -> list[str]:
        """The units that a tick sends."""
        before = len(self.wire.sent)
        self.dispatcher.issue(DRAW)
        return [key for key, _ in self.wire.sent[before:]]

    def change(self, **values: Any) -> None:
        with transaction(self.engine) as session:
            session.execute(update(Unit).where(Unit.issued_at.is_not(None)).values(**values))


@pytest.fixture
def service(engine: Engine) -> Service:
    return Service(engine)


def test_without_a_worker_nothing_is_sent(service: Service) -> None:
    assert service.issue() == []
    service.add_worker("judge", "assessor")
    assert service.issue() == []


def test_each_live_worker_has_room_for_so_many(service: Service) -> None:
    service.add_worker("a", "generator")
    assert service.issue() == ["sample/0", "sample/1"]
    assert service.issue() == []
    service.add_worker("b", "generator", "trainer")
    assert service.issue() == ["sample/2", "sample/3"]
    with transaction(service.engine) as session:
        mark_stopped(session, "a", "stopped")
    assert service.issue() == []


def test_a_worker_that_was_not_heard_of_is_not_counted_on(service: Service) -> None:
    service.add_worker("a", "generator")
    with transaction(service.engine) as session:
        session.execute(update(Worker).values(heartbeat_at=db_time_in(-60)))
    assert service.issue() == []


def test_what_nobody_took_is_sent_again_at_its_token(service: Service) -> None:
    service.add_worker("a", "generator")
    service.issue()
    service.change(issued_at=db_time_in(-31))
    assert service.issue() == ["sample/0", "sample/1"]
    assert Counter(service.wire.sent) == {("sample/0", 0): 2, ("sample/1", 0): 2}


def test_what_was_not_sent_is_asked_for_again(service: Service) -> None:
    service.add_worker("a", "generator")
    service.wire.cut = True
    assert service.issue() == []
    service.wire.cut = False
    assert service.issue() == ["sample/0", "sample/1"]


def test_an_expired_lease_is_noted_and_its_unit_sent_under_a_new_token(service: Service) -> None:
    service.add_worker("a", "generator")
    service.issue()
    with transaction(service.engine) as session:
        for unit in session.scalars(select(Unit).where(Unit.issued_at.is_not(None))).all():
            lease_unit(session, unit.id, "a", token=0, lease_s=-1)
    assert service.issue() == ["sample/0", "sample/1"]
    assert service.wire.sent[-1] == ("sample/1", 2)
    with transaction(service.engine) as session:
        notes = session.scalars(select(Event.message).where(Event.kind == "expired").order_by(Event.id)).all()
    assert len(notes) == 2
    assert notes[0].startswith("round 1, unit sample/0: the lease of worker a ran out: 0 of 1 items, none since 20")
    assert notes[0].endswith("; it is pending now")


def test_only_the_leader_dispatches(service: Service) -> None:
    service.add_worker("a", "generator")
    with transaction(service.engine) as session:
        session.execute(update(Worker).values(heartbeat_at=db_time_in(0)))
    service.leadership.release()
    other = Leadership(service.engine, 1, 15)
    assert other.acquire()
    service.leadership._token = 1  # it was stopped, and knows nothing of this
    with pytest.raises(FencedOutError):
        service.issue()
    assert service.wire.sent == []


def test_a_wait_ends_at_its_deadline_and_says_for_whom(service: Service) -> None:
    service.issue()
    service.now = 51
    assert service.issue() == [], "the round was planned just now"
    with transaction(service.engine) as session:
        session.connection().exec_driver_sql("UPDATE stage_counts SET progress_at = '2020-01-01 00:00:00+00:00'")
    with pytest.raises(StageStalledError, match=r"Round 1, sampling: .* no worker of it is alive: there has never"):
        service.issue()
    service.add_worker("a", "generator")
    with transaction(service.engine) as session:
        unit_id = session.scalars(select(Unit.id).where(Unit.key == "sample/0")).one()
        assert lease_unit(session, unit_id, "a", token=0, lease_s=999)
        session.execute(update(Unit).where(Unit.id == unit_id).values(progress_at=db_time_in(-70)))
    with pytest.raises(StageStalledError, match=r"Worker a holds unit sample/0 at 0 of 1 items, .* 70 s"):
        service.issue()


def test_a_unit_that_was_lost_after_hours_of_progress_is_waited_for_again(service: Service) -> None:
    service.add_worker("a", "generator")
    with transaction(service.engine) as session:
        session.connection().exec_driver_sql("UPDATE stage_counts SET progress_at = '2020-01-01 00:00:00+00:00'")
        unit_id = session.scalars(select(Unit.id).where(Unit.key == "sample/0")).one()
        lease = lease_unit(session, unit_id, "b", token=0, lease_s=999)
        assert lease is not None
        assert renew_lease(session, lease, 3, 10, lease_s=-1)
    service.now = 51
    assert service.issue() == ["sample/0", "sample/1"]
    with transaction(service.engine) as session:
        session.execute(update(Unit).where(Unit.id == unit_id).values(progress_at=db_time_in(-70)))
    with pytest.raises(StageStalledError, match="nothing has gone on for 51 s"):
        service.issue()


def test_a_stage_begins_when_the_one_before_has_ended_however_long_that_was(service: Service) -> None:
    service.add_worker("a", "generator")
    with transaction(service.engine) as session:
        add_units(session, 1, [NewUnit("evaluate", "evaluate/calibration", {})])
        session.connection().exec_driver_sql("UPDATE stage_counts SET progress_at = '2020-01-01 00:00:00+00:00'")
        unit_id = session.scalars(select(Unit.id).where(Unit.kind == "evaluate")).one()
        lease = lease_unit(session, unit_id, "a")
        assert lease is not None
        assert finish_unit(session, lease, 1.0)
    service.now = 51
    assert service.issue() == ["sample/0", "sample/1"]


def test_progress_is_told_when_there_is_any(service: Service, tmp_path: Path) -> None:
    service.issue()
    service.issue()
    assert [(stage.stage, stage.done, stage.total) for stage in service.stages] == [
        ("assessing", 0, 10),
        ("sampling", 0, 10),
    ]
