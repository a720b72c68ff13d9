"""A unit's result is taken once, from the holder of the present lease; counts and readiness follow."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from illume_db.clock import db_time_in
from illume_db.errors import FencedOutError
from illume_db.leases import (
    Lease,
    expire_leases,
    fail_attempt,
    finish_unit,
    hand_back,
    has_undelivered_units,
    lease_unit,
    renew_lease,
    take_back_leases,
)
from illume_db.prompts import PromptRow, ensure_prompts
from illume_db.rounds import add_round, move_round
from illume_db.runs import add_event, add_run
from illume_db.sessions import transaction
from illume_db.tables import Event, Unit
from illume_db.units import (
    NewUnit,
    StageCounts,
    add_units,
    first_dead,
    mark_issued,
    num_in_flight,
    ready_units,
    reset_ready_times,
    stage_counts,
)
from illume_db.versions import add_version

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN, ROUND = 1, 1
UNIT = 1
TRAIN = [NewUnit("train", "train", {"a": 1}, num_items=7)]


def _plan(engine: Engine, units: list[NewUnit]) -> None:
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)
        add_version(session, RUN, parent_id=None, state="active", sha256="0" * 64, num_bytes=1, origin="o", at=NOW)
        ids = ensure_prompts(session, RUN, [PromptRow("train", "key", "c", "t", {})])
        add_round(session, RUN, 1, parent_version_id=1, prompt_ids=ids, at=NOW)
        add_units(session, ROUND, units)


@pytest.fixture
def planned(engine: Engine) -> Engine:
    """A round with one unit."""
    _plan(engine, TRAIN)
    return engine


def _unit(engine: Engine, unit_id: int = UNIT) -> Unit:
    with transaction(engine) as session:
        return session.get_one(Unit, unit_id)


def _state(engine: Engine) -> tuple[str, int, str | None]:
    unit = _unit(engine)
    return unit.state, unit.attempts, unit.error


def _counts(engine: Engine, kind: str = "train") -> tuple[int, int, int, int, int]:
    """(pending, leased, done, dead, items done)"""
    with transaction(engine) as session:
        counts = stage_counts(session, ROUND).get(kind, StageCounts())
    return counts.num_pending, counts.num_leased, counts.num_done, counts.num_dead, counts.items_done


def _lease(engine: Engine, unit_id: int = UNIT, owner: str = "me", **how: float | None) -> Lease:
    with transaction(engine) as session:
        lease = lease_unit(session, unit_id, owner, **how)  # type: ignore[arg-type]
    assert lease is not None
    return lease


def _finish(engine: Engine, unit_id: int) -> None:
    lease = _lease(engine, unit_id)
    with transaction(engine) as session:
        finish_unit(session, lease, 1.0)


def test_a_unit_is_leased_once(planned: Engine) -> None:
    lease = _lease(planned)
    assert (lease.kind, lease.payload, lease.attempts, lease.num_items) == ("train", {"a": 1}, 0, 7)
    assert _counts(planned) == (0, 1, 0, 0, 0)
    with transaction(planned) as session:
        assert lease_unit(session, UNIT, "you") is None
        assert finish_unit(session, lease, 1.5)
    assert _state(planned) == ("done", 0, None)
    assert _counts(planned) == (0, 0, 1, 0, 7)
    with transaction(planned) as session:
        assert lease_unit(session, UNIT, "you") is None
        assert stage_counts(session, ROUND)["train"].seconds == 1.5


def test_of_many_at_once_one_gets_the_lease(planned: Engine) -> None:
    def take(owner: str) -> bool:
        with transaction(planned) as session:
            return lease_unit(session, UNIT, owner, token=0, lease_s=60) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, map(str, range(24)))) == 1
    assert _counts(planned) == (0, 1, 0, 0, 0)


def test_a_message_counts_only_with_the_present_token(planned: Engine) -> None:
    """A duplicate, and one that was sent before the lease went back, are dropped."""
    for token in (-1, 1, 7):
        with transaction(planned) as session:
            assert lease_unit(session, UNIT, "me", token=token) is None
    first = _lease(planned, token=0)
    with transaction(planned) as session:
        assert hand_back(session, first)
        assert not hand_back(session, first)
    with transaction(planned) as session:
        assert lease_unit(session, UNIT, "me", token=0) is None
        assert lease_unit(session, UNIT, "me", token=first.token) is None
        (unit,) = ready_units(session, ROUND, "train", 9)
    assert _lease(planned, token=unit.token).attempts == 0


def test_units_of_an_ended_round_are_not_begun(planned: Engine) -> None:
    with transaction(planned) as session:
        move_round(session, ROUND, "planned", "cancelled")
    with transaction(planned) as session:
        assert lease_unit(session, UNIT, "me") is None


def _late(engine: Engine, lease: Lease) -> list[Callable[[Session], object]]:
    return [
        lambda session: finish_unit(session, lease, 1.0, lambda session: pytest.fail("the effect was applied")),
        lambda session: fail_attempt(session, lease, "e", 1),
    ]


def test_who_lost_the_lease_cannot_deliver(planned: Engine) -> None:
    dead = _lease(planned, owner="dead")
    with transaction(planned) as session:
        assert take_back_leases(session, RUN) == 1
        assert take_back_leases(session, RUN) == 0
    assert _counts(planned) == (1, 0, 0, 0, 0)
    alive = _lease(planned, owner="alive")
    assert alive.token > dead.token
    for late in _late(planned, dead):
        with pytest.raises(FencedOutError, match="train"), transaction(planned) as session:
            late(session)
    with transaction(planned) as session:
        assert not renew_lease(session, dead, 1, 2, 60)
        assert not hand_back(session, dead)
        finish_unit(session, alive, 1.0)
    assert _state(planned) == ("done", 0, None)
    for late in _late(planned, dead):
        with pytest.raises(FencedOutError, match="train"), transaction(planned) as session:
            late(session)


def test_an_effect_is_applied_once_when_the_answer_to_its_commit_was_lost(planned: Engine) -> None:
    lease = _lease(planned)

    def effect(session: Session) -> None:
        add_event(session, RUN, "effect", "e", at=NOW)

    for taken in (True, False, False):
        with transaction(planned) as session:
            assert finish_unit(session, lease, 1.0, effect) is taken
    with transaction(planned) as session:
        assert session.scalar(select(func.count()).select_from(Event)) == 1
    assert _counts(planned) == (0, 0, 1, 0, 7)


def test_an_effect_that_fails_leaves_the_unit_leased(planned: Engine) -> None:
    lease = _lease(planned)

    def effect(session: Session) -> None:
        add_event(session, RUN, "effect", "e", at=NOW)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError), transaction(planned) as session:
        finish_unit(session, lease, 1.0, effect)
    assert _counts(planned) == (0, 1, 0, 0, 0)
    with transaction(planned) as session:
        assert session.scalar(select(func.count()).select_from(Event)) == 0
        assert fail_attempt(session, lease, "no", 3) == "pending"


def test_attempts_are_capped(planned: Engine) -> None:
    for attempt, state in ((1, "pending"), (2, "pending"), (3, "dead")):
        lease = _lease(planned)
        with transaction(planned) as session:
            assert first_dead(session, ROUND) is None
            assert fail_attempt(session, lease, f"error {attempt}", 3) == state
        assert _state(planned) == (state, attempt, f"error {attempt}")
    assert _counts(planned) == (0, 0, 0, 1, 0)
    with transaction(planned) as session:
        assert lease_unit(session, UNIT, "me") is None
        dead = first_dead(session, ROUND, "train")
        assert first_dead(session, ROUND, "sample") is None
    assert dead is not None
    assert (dead.key, dead.attempts, dead.error) == ("train", 3, "error 3")


def test_a_kill_is_not_an_attempt(planned: Engine) -> None:
    for _ in range(5):
        _lease(planned, owner="killed")
        with transaction(planned) as session:
            take_back_leases(session, RUN)
    assert _state(planned) == ("pending", 0, None)


def _let_it_run_out(engine: Engine) -> None:
    with transaction(engine) as session:
        session.execute(update(Unit).where(Unit.state == "leased").values(lease_expires_at=db_time_in(-0.01)))


def test_a_lease_that_is_not_renewed_runs_out_and_is_an_attempt(planned: Engine) -> None:
    for attempt, state in ((1, "pending"), (2, "dead")):
        lease = _lease(planned, owner="host:7", lease_s=60)
        with transaction(planned) as session:
            assert expire_leases(session, RUN, 2) == []
            assert renew_lease(session, lease, 3, 7, 60)
        _let_it_run_out(planned)
        with transaction(planned) as session:
            assert expire_leases(session, RUN + 1, 2) == []
            (expired,) = expire_leases(session, RUN, 2)
            assert expire_leases(session, RUN, 2) == []
        told = (expired.key, expired.round_index, expired.kind, expired.worker, expired.items_done, expired.items_total)
        assert told == ("train", 1, "train", "host:7", 3, 7)
        assert expired.state == state
        assert expired.progress_at is not None
        error = _unit(planned).error
        assert error is not None
        assert error.startswith("the lease of worker host:7 ran out: 3 of 7 items, none since 20")
        assert _state(planned)[:2] == (state, attempt)
        with transaction(planned) as session:
            assert not renew_lease(session, lease, 4, 7, 60)
    assert _counts(planned) == (0, 0, 0, 1, 0)


def test_the_databases_clock_decides(planned: Engine) -> None:
    """Leases of seconds run out by themselves, a renewed one later, an inline one (without an end) never."""
    lease = _lease(planned, lease_s=0.05)
    with transaction(planned) as session:
        renew_lease(session, lease, 1, 7, 0.05)
    expired = []
    for _ in range(1000):
        with transaction(planned) as session:
            expired += expire_leases(session, RUN, 3)
        if expired:
            break
    assert len(expired) == 1
    _lease(planned)
    with transaction(planned) as session:
        assert expire_leases(session, RUN, 3) == []


def test_a_unit_in_flight_is_not_sent_again_at_once(planned: Engine) -> None:
    def ready(reissue_after_s: float | None) -> int:
        with transaction(planned) as session:
            return len(ready_units(session, ROUND, "train", 9, reissue_after_s=reissue_after_s))

    def in_flight() -> int:
        with transaction(planned) as session:
            return num_in_flight(session, RUN, "train")

    assert (ready(60), in_flight()) == (1, 0)
    with transaction(planned) as session:
        mark_issued(session, [UNIT])
    assert (ready(60), ready(0), ready(None), in_flight()) == (0, 1, 1, 1)
    lease = _lease(planned, lease_s=60)
    assert (ready(None), in_flight()) == (0, 1)
    with transaction(planned) as session:
        fail_attempt(session, lease, "e", 3)
    assert (ready(60), in_flight()) == (1, 0), "its message is used up, so it is sent again at once"
    with transaction(planned) as session:
        assert num_in_flight(session, RUN, "sample") == 0


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ("done", "state = 'pending'"),
        ("done", "seconds = 0"),
        ("done", "fencing_token = fencing_token + 1"),
        ("dead", "state = 'pending', error = NULL"),
    ],
)
def test_the_database_refuses_to_change_a_settled_unit(planned: Engine, before: str, change: str) -> None:
    lease = _lease(planned)
    with transaction(planned) as session:
        finish_unit(session, lease, 1.0) if before == "done" else fail_attempt(session, lease, "e", 1)
    with pytest.raises(DBAPIError, match="units_final_state_is_final"), transaction(planned) as session:
        session.execute(text(f"UPDATE units SET {change}"))


def test_the_database_refuses_to_lower_a_token(planned: Engine) -> None:
    _lease(planned)
    with pytest.raises(DBAPIError, match="fencing_token_only_rises"), transaction(planned) as session:
        session.execute(text("UPDATE units SET fencing_token = fencing_token - 1"))


class TestReadiness:
    """Ten rows, drawn by 4 and assessed by 3: an assessment is due when the last drawing of its rows is settled."""

    @pytest.fixture
    def drawing(self, engine: Engine) -> Engine:
        rows = [("sample", f, min(f + 4, 10)) for f in range(0, 10, 4)]
        rows += [("assess", f, min(f + 3, 10)) for f in range(0, 10, 3)]
        _plan(engine, [NewUnit(k, f"{k}/{first}", {}, (first, stop), stop - first) for k, first, stop in rows])
        return engine

    def _ready(self, engine: Engine) -> list[str]:
        with transaction(engine) as session:
            return [unit.key for unit in ready_units(session, ROUND, "assess", 9)]

    def test_in_any_order(self, drawing: Engine) -> None:
        assert self._ready(drawing) == []
        with transaction(drawing) as session:
            assert lease_unit(session, 4, "me") is None, "assess/0 has no rows yet"
        _finish(drawing, 3)  # rows 8..9
        assert self._ready(drawing) == ["assess/9"]
        _finish(drawing, 1)  # rows 0..3
        assert self._ready(drawing) == ["assess/0", "assess/9"]
        _finish(drawing, 2)
        assert self._ready(drawing) == ["assess/0", "assess/3", "assess/6", "assess/9"]
        assert _counts(drawing, "sample") == (0, 0, 3, 0, 10)
        assert _counts(drawing, "assess") == (4, 0, 0, 0, 0)

    def test_a_dead_drawing_holds_nothing_up(self, drawing: Engine) -> None:
        _finish(drawing, 1)
        lease = _lease(drawing, 2)
        with transaction(drawing) as session:
            fail_attempt(session, lease, "e", 2)
        assert self._ready(drawing) == ["assess/0"]
        _lease(drawing, 2, lease_s=60)
        _let_it_run_out(drawing)
        with transaction(drawing) as session:
            expire_leases(session, RUN, 2)
        assert self._ready(drawing) == ["assess/0", "assess/3"]

    def test_the_last_two_drawings_at_once(self, engine: Engine) -> None:
        """Both commit at the same moment, many times: neither may overlook the other."""
        num = 40
        units = [NewUnit("sample", f"sample/{i}", {}, (i, i + 1), 1) for i in range(2 * num)]
        units += [NewUnit("assess", f"assess/{i}", {}, (2 * i, 2 * i + 2), 2) for i in range(num)]
        _plan(engine, units)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda unit_id: _finish(engine, unit_id), range(1, 2 * num + 1)))
        with transaction(engine) as session:
            assert len(ready_units(session, ROUND, "assess", 1000)) == num
        assert _counts(engine, "sample") == (0, 0, 2 * num, 0, 2 * num)


def test_units_that_were_planned_long_before_their_stage_wait_from_its_beginning(planned: Engine) -> None:
    """Else an idle worker that is sent one would take itself for deaf."""
    ago = {"ready_at": db_time_in(-700), "issued_at": db_time_in(-3)}
    with transaction(planned) as session:
        session.execute(update(Unit).values(**ago))
        assert has_undelivered_units(session, ["train"], 600, 60)
        reset_ready_times(session, ROUND)
        assert not has_undelivered_units(session, ["train"], 600, 60)
        assert session.get_one(Unit, UNIT).state == "pending"
