"""Leases of units: take, renew, finish, fail, hand back and expire them, and report who holds which unit.

A unit goes pending -> leased -> done. It goes back to pending after a failed attempt, and is dead after the last one.

Invariants:

- Every change is one UPDATE with the state and the fencing token that it expects. Two workers never both win, and a
  worker that lost its lease changes nothing.
- All times are the database's.
- Every transaction locks units in the order of their ids, and then the counts of their stages. Transactions therefore
  never wait for each other in a circle. To keep that order, a transaction calls only one function that changes units,
  unless no other transaction runs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.orm import Session

from illume_db.clock import db_now, db_time_in, seconds_since
from illume_db.errors import FencedOutError
from illume_db.tables import ModelVersion, Round, StageCount, Unit, Worker
from illume_db.tables.rounds import TERMINAL_STATES
from illume_db.tables.units import in_state, is_due, shown_state
from illume_db.tables.versions import version_name
from illume_db.units import SILENT, count_moved, release_assessments, release_samples, release_update

MAX_ERROR_LENGTH = 2_000

RELEASES = "releases"
"""The key in a unit's payload of the rows (first, stop) whose sample units wait for it."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's lease on a unit. A result is accepted only while `token` is the unit's fencing token."""

    unit_id: int
    round_id: int
    round_index: int
    kind: str
    key: str
    payload: dict[str, Any]
    attempts: int
    token: int
    first_row: int
    stop_row: int
    num_items: int


@dataclass(frozen=True, slots=True)
class ExpiredLease:
    """A lease that ran out because its worker made no progress; `state` is the unit's new state."""

    unit_id: int
    key: str
    round_index: int
    kind: str
    worker: str
    items_done: int
    items_total: int
    progress_at: datetime | None
    state: str
    error: str


def lease_unit(
    session: Session, unit_id: int, owner: str, *, token: int | None = None, lease_s: float | None = None
) -> Lease | None:
    """Lease a pending unit to `owner` for `lease_s` seconds; None means without an end.

    It returns None if the unit is not pending, not ready, or of a round that has ended. It also returns None if the
    unit's token is no longer `token`: the message that named the unit is then late or a duplicate.
    """
    open_round = select(Round.id).where(Round.id == Unit.round_id, Round.state.not_in(TERMINAL_STATES)).exists()
    take = update(Unit).where(Unit.id == unit_id, Unit.state == "pending", Unit.ready_at.is_not(None), open_round)
    if token is not None:
        take = take.where(Unit.fencing_token == token)
    take = take.values(
        state="leased",
        lease_owner=owner,
        lease_expires_at=None if lease_s is None else db_time_in(lease_s),
        fencing_token=Unit.fencing_token + 1,
        items_done=0,
        progress_at=db_now(),
    )
    if not _changes_one(session, take):
        return None
    unit = session.get_one(Unit, unit_id, populate_existing=True)
    count_moved(session, unit.round_id, unit.kind, "pending", "leased")
    return Lease(
        unit.id,
        unit.round_id,
        session.get_one(Round, unit.round_id).index,
        unit.kind,
        unit.key,
        unit.payload,
        unit.attempts,
        unit.fencing_token,
        unit.first_row or 0,
        unit.stop_row or 0,
        unit.items_total,
    )


def renew_lease(session: Session, lease: Lease, items_done: int, items_total: int, lease_s: float) -> bool:
    """Store progress and extend the lease to `lease_s` seconds from now; return False if the lease is lost."""
    return _changes_one(
        session,
        _held(lease).values(
            lease_expires_at=db_time_in(lease_s), items_done=items_done, items_total=items_total, progress_at=db_now()
        ),
    )


def lock_leased_unit(session: Session, lease: Lease) -> None:
    """Lock the leased unit, so that no other worker takes it over before this transaction commits.

    Raises FencedOutError if the lease is lost.
    """
    held = select(Unit.id).where(Unit.id == lease.unit_id, Unit.state == "leased", Unit.fencing_token == lease.token)
    if session.scalar(held.with_for_update()) is None:
        raise FencedOutError(lease.key)


def finish_unit(
    session: Session, lease: Lease, seconds: float, effect: Callable[[Session], None] | None = None
) -> bool:
    """Mark the unit done and apply its effect in the same transaction; the lock on the unit fences the effect.

    It returns False and changes nothing if this lease has finished the unit already. That happens when the connection
    is lost before the reply to a commit arrives. Raises FencedOutError if the lease is lost, so that nothing is
    committed.
    """
    done = _held(lease).values(
        state="done",
        lease_owner=None,
        lease_expires_at=None,
        error=None,
        seconds=seconds,
        items_done=Unit.items_total,
        progress_at=db_now(),
    )
    if not _changes_one(session, done):
        found = session.get_one(Unit, lease.unit_id, populate_existing=True)
        if (found.state, found.fencing_token) == ("done", lease.token):
            return False
        raise FencedOutError(lease.key)
    # The counts come last, because the lock on them makes all other transactions of the stage wait.
    if effect is not None:
        effect(session)
    count_moved(session, lease.round_id, lease.kind, "leased", "done", num_items=lease.num_items, seconds=seconds)
    _settled(session, lease.round_id, lease.kind, (lease.first_row, lease.stop_row), lease.payload, "done")
    return True


def fail_attempt(session: Session, lease: Lease, error: str, max_attempts: int) -> str:
    """Count a failed attempt; return the unit's new state, `pending`, or `dead` after the last attempt."""
    state = "dead" if lease.attempts + 1 >= max_attempts else "pending"
    failed = _given_up(_held(lease), state).values(attempts=lease.attempts + 1, error=error[:MAX_ERROR_LENGTH])
    if not _changes_one(session, failed):
        raise FencedOutError(lease.key)
    count_moved(session, lease.round_id, lease.kind, "leased", state)
    if state == "dead":
        _settled(session, lease.round_id, lease.kind, (lease.first_row, lease.stop_row), lease.payload, state)
    return state


def hand_back(session: Session, lease: Lease) -> bool:
    """Return a unit to the queue without counting an attempt; return False if the lease is lost."""
    back = _given_up(_held(lease), "pending").values(fencing_token=Unit.fencing_token + 1)
    if not _changes_one(session, back):
        return False
    count_moved(session, lease.round_id, lease.kind, "leased", "pending")
    return True


def expire_leases(session: Session, run_id: int, max_attempts: int) -> list[ExpiredLease]:
    """Take back the run's leases that were not renewed in time, and count each as a failed attempt.

    Units that another transaction has locked are left for the next call.
    """
    late = (
        select(Unit, Round.index)
        .join(Round, Round.id == Unit.round_id)
        .where(Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES))
        .where(in_state("leased"), Unit.lease_expires_at < db_now())
        .order_by(Unit.id)
        .with_for_update(of=Unit, skip_locked=True)
        .execution_options(populate_existing=True)
    )
    expired = [_expire(session, unit, index, max_attempts) for unit, index in session.execute(late).all()]
    moved = Counter((unit.round_id, unit.kind, lease.state) for unit, lease in expired)
    for (round_id, kind, state), num_units in sorted(moved.items()):
        count_moved(session, round_id, kind, "leased", state, num_units=num_units)
    for unit, lease in expired:
        if lease.state == "dead":
            rows = unit.first_row or 0, unit.stop_row or 0
            _settled(session, unit.round_id, unit.kind, rows, unit.payload, lease.state)
    return [lease for _, lease in expired]


def take_back_leases(session: Session, run_id: int, *, of_workers: bool = False) -> int:
    """Make the units pending again that a dead holder of the run directory's lock left leased; return their number.

    `of_workers` also takes back the units that workers hold. A process that does all units itself needs that.

    The tokens rise, so no result that the dead process may still send is accepted. No attempt is counted, because the
    unit need not be the reason why the process was killed.
    """
    of_run = select(Round.id).where(Round.run_id == run_id)
    leased = select(Unit.id).where(Unit.round_id.in_(of_run), in_state("leased")).order_by(Unit.id)
    if not of_workers:
        leased = leased.where(Unit.lease_expires_at.is_(None))
    back = update(Unit).where(Unit.id.in_(leased.with_for_update()))
    back = _given_up(back, "pending").values(fencing_token=Unit.fencing_token + 1)
    taken = session.execute(back.returning(Unit.round_id, Unit.kind), execution_options=SILENT)
    moved = Counter((str(kind), int(round_id)) for round_id, kind in taken.all())
    for (kind, round_id), num_units in sorted(moved.items()):
        count_moved(session, round_id, kind, "leased", "pending", num_units=num_units)
    return sum(moved.values())


def drop_units(session: Session, round_id: int) -> int:
    """Take back all open units of a round, so that no worker begins or finishes one; return how many were leased.

    Their tokens rise, so results that workers still send and messages that are on their way are refused. No attempt is
    counted.
    """
    is_open = (Unit.round_id == round_id, Unit.state.in_(("pending", "leased")))
    query = select(Unit.kind, Unit.state).where(*is_open).order_by(Unit.id).with_for_update()
    found = session.execute(query).all()
    dropped = _given_up(update(Unit).where(*is_open), "pending")
    dropped = dropped.values(fencing_token=Unit.fencing_token + 1, ready_at=None)
    session.execute(dropped, execution_options=SILENT)
    held = Counter(kind for kind, state in found if state == "leased")
    for kind, num_units in sorted(held.items()):
        count_moved(session, round_id, kind, "leased", "pending", num_units=num_units)
    return held.total()


def _expire(session: Session, unit: Unit, round_index: int, max_attempts: int) -> tuple[Unit, ExpiredLease]:
    state = "dead" if unit.attempts + 1 >= max_attempts else "pending"
    worker = unit.lease_owner or "(unknown)"
    since = f"{unit.progress_at:%Y-%m-%d %H:%M:%S} UTC" if unit.progress_at else "its lease"
    error = f"the lease of worker {worker} ran out: {unit.items_done} of {unit.items_total} items, none since {since}"
    lease = ExpiredLease(
        unit.id,
        unit.key,
        round_index,
        unit.kind,
        worker,
        unit.items_done,
        unit.items_total,
        unit.progress_at,
        state,
        error,
    )
    change = update(Unit).where(Unit.id == unit.id, Unit.fencing_token == unit.fencing_token)
    attempt = {"attempts": unit.attempts + 1, "fencing_token": unit.fencing_token + 1, "error": error}
    session.execute(_given_up(change, state).values(**attempt), execution_options=SILENT)
    return unit, lease


def _settled(
    session: Session, round_id: int, kind: str, rows: tuple[int, int], payload: Mapping[str, Any], state: str
) -> None:
    """Make the units ready that waited for this one, which is done or dead. Nothing follows a dead update."""
    if kind == "sample":
        release_assessments(session, round_id, *rows)
    elif "update" in payload and (kind, state) != ("train", "dead"):
        release_update(session, round_id)
    if RELEASES in payload and state == "done":
        release_samples(session, round_id, *payload[RELEASES])


def _held(lease: Lease) -> Update:
    return update(Unit).where(Unit.id == lease.unit_id, Unit.state == "leased", Unit.fencing_token == lease.token)


def _given_up(change: Update, state: str) -> Update:
    """Add to a change that no worker holds the unit. A pending unit counts as unsent and waits from now on."""
    values: dict[str, Any] = {"state": state, "lease_owner": None, "lease_expires_at": None, "issued_at": None}
    if state == "pending":
        values["ready_at"] = db_now()
    return change.values(**values)


def _changes_one(session: Session, change: Update) -> bool:
    return cast("CursorResult[Any]", session.execute(change, execution_options=SILENT)).rowcount == 1


SETTLE_S = 2.0
"""Seconds after which a message counts as delivered; a younger one may be on its way."""

MOST_LINES = 20
"""The most units that `held_units` lists; the stage counts hold the full number."""


@dataclass(frozen=True, slots=True)
class UnitAddress:
    """The run that a unit belongs to, and its kind."""

    run_id: int
    kind: str


def find_unit(session: Session, unit_id: int) -> UnitAddress | None:
    """Return the run and the kind of a unit; None if there is no unit with this id."""
    row = session.execute(
        select(Round.run_id, Unit.kind).join(Unit, Unit.round_id == Round.id).where(Unit.id == unit_id)
    ).one_or_none()
    return None if row is None else UnitAddress(*row)


def is_held(session: Session, unit_id: int, token: int) -> bool:
    """Return whether a unit is leased under this token."""
    query = select(Unit.id).where(Unit.id == unit_id, in_state("leased"), Unit.fencing_token == token)
    return session.scalar(query) is not None


def version_name_of(session: Session, run_id: int, sha256: str) -> str | None:
    """Return the name of the first version of a run with this checkpoint; None if there is none."""
    number = session.scalar(
        select(ModelVersion.number)
        .where(ModelVersion.run_id == run_id, ModelVersion.sha256 == sha256)
        .order_by(ModelVersion.number)
        .limit(1)
    )
    return None if number is None else version_name(number)


def held_units(session: Session, round_id: int) -> list[dict[str, Any]]:
    """Return one object per leased unit of a round, the one with the oldest progress first.

    Keys: unit, kind, worker, items_done, items_total, progress_age_s, attempts.
    """
    age = seconds_since(Unit.progress_at)
    query = (
        select(Unit.key, Unit.kind, Unit.lease_owner, Unit.items_done, Unit.items_total, age, Unit.attempts)
        .where(Unit.round_id == round_id, in_state("leased"))
        .order_by(Unit.progress_at, Unit.id)
        .limit(MOST_LINES)
    )
    names = ("unit", "kind", "worker", "items_done", "items_total", "progress_age_s", "attempts")
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in session.execute(query)]
    return [row | {"progress_age_s": _rounded(row["progress_age_s"])} for row in rows]


def items_held(session: Session, round_id: int, kind: str) -> tuple[int, int]:
    """Return (items done, items in all) of the leased units of a kind."""
    query = select(func.sum(Unit.items_done), func.sum(Unit.items_total)).where(
        Unit.round_id == round_id, Unit.kind == kind, in_state("leased")
    )
    done, total = session.execute(query).one()
    return int(done or 0), int(total or 0)


def progress_age(session: Session, round_id: int) -> float:
    """Return the seconds since the last progress of a round: a unit was planned, leased, worked on or finished.

    All stages count, because the units of a stage may have been planned long before it begins. Work on a unit whose
    worker was lost counts too, so the next worker has as much time for it as any other.
    """
    counts = select(func.max(StageCount.progress_at)).where(StageCount.round_id == round_id)
    units = select(func.max(Unit.progress_at)).where(Unit.round_id == round_id)
    latest = counts, units.where(in_state("leased")), units.where(is_due(), Unit.items_done > 0)
    # One statement sees one moment. Between two statements a unit may go from leased to done and be missed by both.
    ages = session.execute(select(*(seconds_since(one.scalar_subquery()) for one in latest))).one()
    return min((age for age in ages if age is not None), default=0.0)


def has_undelivered_units(session: Session, kinds: Collection[str], waited_s: float, sent_within_s: float) -> bool:
    """Return whether a unit of these kinds has waited for `waited_s` although it was sent within `sent_within_s`.

    If so, the messages about these units reach no worker.
    """
    lately = Unit.issued_at.between(db_time_in(-sent_within_s), db_time_in(-SETTLE_S))
    query = select(Unit.id).where(
        in_state("pending"), Unit.kind.in_(kinds), Unit.ready_at < db_time_in(-waited_s), lately
    )
    return session.scalar(query.limit(1)) is not None


def last_worker(session: Session, role: str) -> dict[str, Any] | None:
    """Return the worker of a role with the latest heartbeat: name, state, heartbeat_age_s. None if there is none."""
    query = select(Worker.name, shown_state(), Worker.roles, seconds_since(Worker.heartbeat_at)).order_by(
        Worker.heartbeat_at.desc()
    )
    for name, state, roles, age in session.execute(query):
        if role in roles:
            return {"name": name, "state": state, "heartbeat_age_s": age}
    return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
