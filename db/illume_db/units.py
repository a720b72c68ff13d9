"""Units of a round: plan them, find those that may be done, and keep the counts of their stages.

`illume_db.leases` moves units from state to state. Its invariants hold here too: all times are the database's, and
units are locked in the order of their ids, before the counts of their stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Select, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from illume_db.clock import db_now, db_time_in
from illume_db.tables import Round, StageCount, Unit
from illume_db.tables.rounds import TERMINAL_STATES
from illume_db.tables.units import in_state, is_due

SILENT = {"synchronize_session": False}
"""Options for an UPDATE of units. The session holds no units as objects, so none has to be brought up to date."""

WAITS_FOR_ROWS = "assess"


@dataclass(frozen=True, slots=True)
class NewUnit:
    """A unit to plan; `key` is unique within the round, and `rows` is the range (first, stop) of its rows, if any.

    A unit that `waits` becomes ready when the units before it are done.
    """

    kind: str
    key: str
    payload: dict[str, Any]
    rows: tuple[int, int] | None = None
    num_items: int = 0
    waits: bool = False


def add_units(session: Session, round_id: int, units: Sequence[NewUnit]) -> None:
    """Plan units as pending. Assessments become ready when their rows are drawn; others at once, unless they wait."""
    for (kind, waits), group in groupby(units, key=lambda unit: (unit.kind, unit.waits)):
        of_kind = list(group)
        rows = [_row(round_id, unit) for unit in of_kind]
        ready_at = None if waits or kind == WAITS_FOR_ROWS else db_now()
        session.execute(insert(Unit).values(ready_at=ready_at), rows)
        count_planned(session, round_id, kind, len(of_kind), sum(unit.num_items for unit in of_kind))


def _row(round_id: int, unit: NewUnit) -> dict[str, Any]:
    return {
        "round_id": round_id,
        "kind": unit.kind,
        "key": unit.key,
        "payload": unit.payload,
        "state": "pending",
        "first_row": unit.rows[0] if unit.rows else None,
        "stop_row": unit.rows[1] if unit.rows else None,
        "items_total": unit.num_items,
    }


def reset_ready_times(session: Session, round_id: int) -> None:
    """Reset the waiting time of the round's ready units, which were planned before their stage could begin."""
    due = update(Unit).where(Unit.round_id == round_id, is_due())
    session.execute(due.values(ready_at=db_now()), execution_options=SILENT)


def mark_issued(session: Session, unit_ids: Sequence[int]) -> None:
    """Record that pending units were sent to the workers just now; skip units that a worker is leasing."""
    pending = select(Unit.id).where(Unit.id.in_(unit_ids), Unit.state == "pending").order_by(Unit.id)
    issued = update(Unit).where(Unit.id.in_(pending.with_for_update(skip_locked=True)))
    session.execute(issued.values(issued_at=db_now()), execution_options=SILENT)


@dataclass(frozen=True, slots=True)
class StageCounts:
    """The number of a round's units of one kind in each state, with their items and seconds."""

    num_units: int = 0
    num_pending: int = 0
    num_leased: int = 0
    num_done: int = 0
    num_dead: int = 0
    items_total: int = 0
    items_done: int = 0
    seconds: float = 0.0
    progress_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A unit as the coordinator reads it; a message about the unit carries its `token`."""

    id: int
    round_id: int
    round_index: int
    kind: str
    key: str
    state: str
    payload: dict[str, Any]
    attempts: int
    error: str | None
    token: int


def stage_counts(session: Session, round_id: int) -> dict[str, StageCounts]:
    """Return the counts of a round's units by kind; a kind without units is left out."""
    query = select(
        StageCount.kind,
        StageCount.num_units,
        StageCount.num_pending,
        StageCount.num_leased,
        StageCount.num_done,
        StageCount.num_dead,
        StageCount.items_total,
        StageCount.items_done,
        StageCount.seconds,
        StageCount.progress_at,
    ).where(StageCount.round_id == round_id)
    return {kind: StageCounts(*counts) for kind, *counts in session.execute(query)}


def ready_units(
    session: Session, round_id: int, kind: str, limit: int, *, reissue_after_s: float | None = None
) -> list[UnitRow]:
    """Return at most `limit` pending units of a kind that may begin, in planned order.

    `reissue_after_s` leaves out units that were sent to the workers less than that many seconds ago.
    """
    query = _unit_rows().where(Unit.round_id == round_id, Unit.kind == kind, is_due()).order_by(Unit.id).limit(limit)
    if reissue_after_s is not None:
        query = query.where(or_(Unit.issued_at.is_(None), Unit.issued_at <= db_time_in(-reissue_after_s)))
    return [UnitRow(*row) for row in session.execute(query)]


def num_in_flight(session: Session, run_id: int, kind: str, *, sent_within_s: float | None = None) -> int:
    """Count the units of a kind that workers hold or have been sent, over the run's open rounds.

    `sent_within_s` leaves out units that were sent longer ago than that many seconds.
    """
    of_run = (Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES))
    leased = select(func.sum(StageCount.num_leased)).join(Round, Round.id == StageCount.round_id)
    sent = select(func.count()).select_from(Unit).where(in_state("pending"), Unit.issued_at.is_not(None))
    if sent_within_s is not None:
        sent = sent.where(Unit.issued_at > db_time_in(-sent_within_s))
    round_ids = select(Round.id).where(*of_run)
    num_leased = session.scalar(leased.where(*of_run, StageCount.kind == kind)) or 0
    return int(num_leased) + (session.scalar(sent.where(Unit.round_id.in_(round_ids), Unit.kind == kind)) or 0)


def first_dead(session: Session, round_id: int, kind: str | None = None) -> UnitRow | None:
    """Return the first dead unit of a round, or of one kind; None if there is none.

    Its error says why the round cannot go on.
    """
    query = _unit_rows().where(Unit.round_id == round_id, in_state("dead")).order_by(Unit.id).limit(1)
    found = session.execute(query if kind is None else query.where(Unit.kind == kind)).first()
    return None if found is None else UnitRow(*found)


def _unit_rows() -> Select[int, int, int, str, str, str, dict[str, Any], int, str | None, int]:
    return select(
        Unit.id,
        Unit.round_id,
        Round.index,
        Unit.kind,
        Unit.key,
        Unit.state,
        Unit.payload,
        Unit.attempts,
        Unit.error,
        Unit.fencing_token,
    ).join(Round, Round.id == Unit.round_id)


OF_STATE = {
    "pending": StageCount.num_pending,
    "leased": StageCount.num_leased,
    "done": StageCount.num_done,
    "dead": StageCount.num_dead,
}


def count_planned(session: Session, round_id: int, kind: str, num_units: int, num_items: int) -> None:
    """Count new units, all of them pending."""
    more = (
        update(StageCount)
        .where(StageCount.round_id == round_id, StageCount.kind == kind)
        .values(
            num_units=StageCount.num_units + num_units,
            num_pending=StageCount.num_pending + num_units,
            items_total=StageCount.items_total + num_items,
        )
    )
    if cast("CursorResult[Any]", session.execute(more)).rowcount == 0:
        first = {"num_units": num_units, "num_pending": num_units, "items_total": num_items}
        session.execute(insert(StageCount).values(round_id=round_id, kind=kind, progress_at=db_now(), **first))


def count_moved(
    session: Session,
    round_id: int,
    kind: str,
    before: str,
    after: str,
    *,
    num_units: int = 1,
    num_items: int = 0,
    seconds: float = 0.0,
) -> None:
    """Count units that moved from one state to another; `num_items` and `seconds` are those of finished units.

    The count of finished items never exceeds that of planned ones. A training is planned with no items, because it
    reports their number only while it runs.
    """
    old, new = OF_STATE[before], OF_STATE[after]
    items_done = StageCount.items_done + num_items
    session.execute(
        update(StageCount)
        .where(StageCount.round_id == round_id, StageCount.kind == kind)
        .values(
            {
                old: old - num_units,
                new: new + num_units,
                StageCount.items_done: case(
                    (items_done > StageCount.items_total, StageCount.items_total), else_=items_done
                ),
                StageCount.seconds: StageCount.seconds + seconds,
                StageCount.progress_at: db_now() if after == "done" else StageCount.progress_at,
            }
        )
    )


def release_assessments(session: Session, round_id: int, first_row: int, stop_row: int) -> None:
    """Make assessments ready if all sample units of their rows are done or dead, after one with these rows ended.

    Call it after `count_moved` for the sample unit in the same transaction. The lock on the counts then lets only one
    transaction at a time read the states of the sample units.
    """
    waiting = _covering(session, round_id, "assess", first_row, stop_row, Unit.ready_at.is_(None))
    if not waiting:
        return
    first, stop = min(unit[1] for unit in waiting), max(unit[2] for unit in waiting)
    missing = _covering(session, round_id, "sample", first, stop, Unit.state.in_(("pending", "leased")))
    ready = [
        id_
        for id_, first, stop in waiting
        if not any(first < missing_stop and missing_first < stop for _, missing_first, missing_stop in missing)
    ]
    if ready:
        session.execute(update(Unit).where(Unit.id.in_(ready)).values(ready_at=db_now()))


def release_update(session: Session, round_id: int) -> None:
    """Make a round's next update ready if the one before it is done and no assessment of its rows is open.

    Call it after an update or one of its assessments has ended, after `count_moved` in the same transaction. The lock
    on the count of trainings lets only one transaction at a time look, so that the last one to end finds the rest done.
    """
    trainings = (StageCount.round_id == round_id, StageCount.kind == "train")
    session.execute(select(StageCount.kind).where(*trainings).with_for_update())
    is_open = Unit.state.in_(("pending", "leased"))
    first_open = select(Unit.id, Unit.first_row, Unit.stop_row, Unit.ready_at).where(
        Unit.round_id == round_id, Unit.kind == "train", is_open
    )
    found = session.execute(first_open.order_by(Unit.id).limit(1)).first()
    if found is None or found.ready_at is not None:
        return
    if found.stop_row and _covering(session, round_id, "assess", found.first_row, found.stop_row, is_open):
        return
    session.execute(update(Unit).where(Unit.id == found.id).values(ready_at=db_now()), execution_options=SILENT)


def release_samples(session: Session, round_id: int, first_row: int, stop_row: int) -> None:
    """Make the waiting sample units of these rows ready, after the update that their policy comes from has ended."""
    waiting = _covering(session, round_id, "sample", first_row, stop_row, Unit.ready_at.is_(None))
    of_rows = [id_ for id_, first, _ in waiting if first >= first_row]
    if of_rows:
        change = update(Unit).where(Unit.id.in_(of_rows), Unit.state == "pending")
        session.execute(change.values(ready_at=db_now()), execution_options=SILENT)


def _covering(
    session: Session, round_id: int, kind: str, first_row: int, stop_row: int, condition: ColumnElement[bool]
) -> Sequence[tuple[int, int, int]]:
    """Return (id, first row, stop row) of the units of a kind that cover any of these rows; read no other units."""
    of_kind = (Unit.round_id == round_id, Unit.kind == kind)
    begins = select(func.max(Unit.first_row)).where(*of_kind, Unit.first_row <= first_row).scalar_subquery()
    query = select(Unit.id, Unit.first_row, Unit.stop_row).where(
        *of_kind, Unit.first_row >= func.coalesce(begins, 0), Unit.first_row < stop_row, condition
    )
    return [(id_, first or 0, stop or 0) for id_, first, stop in session.execute(query)]
