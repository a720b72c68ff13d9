"""The life of a unit: pending -> leased -> done, back to pending after a failed attempt, or dead after the last.

Every change is one UPDATE with the state and the fencing token that it expects, so two workers can never both win, and
a worker that lost its lease changes nothing. Times are the database's. The order of locks is the same everywhere, units
in the order of their ids and then the counts of their stages, so that transactions wait for each other and never in a
circle; so a transaction changes units once (by one call of what is below), unless it is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Select, case, func, insert, or_, select, update
from sqlalchemy.orm import Session

from illume_db.clock import db_later, db_now
from illume_db.tables import Round, StageCount, Unit
from illume_db.tables.rounds import TERMINAL_STATES
from illume_db.tables.units import in_state, is_due

SILENT = {"synchronize_session": False}
"""No unit is kept as an object here, so none has to be brought up to date."""

WAITS_FOR_ROWS = "assess"


@dataclass(frozen=True, slots=True)
class NewUnit:
    """A unit to plan; `key` is unique within the round, `rows` (first, stop) are those that it covers, if any."""

    kind: str
    key: str
    payload: dict[str, Any]
    rows: tuple[int, int] | None = None
    num_items: int = 0


def add_units(session: Session, round_id: int, units: Sequence[NewUnit]) -> None:
    """Plan units; all begin as pending, and assessments wait until their rows are drawn."""
    for kind, group in groupby(units, key=lambda unit: unit.kind):
        of_kind = list(group)
        rows = [_row(round_id, unit) for unit in of_kind]
        session.execute(insert(Unit).values(ready_at=None if kind == WAITS_FOR_ROWS else db_now()), rows)
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


def begin_waiting(session: Session, round_id: int) -> None:
    """Let the round's units that may be done wait from now on: they were planned before their stage could begin."""
    due = update(Unit).where(Unit.round_id == round_id, is_due())
    session.execute(due.values(ready_at=db_now()), execution_options=SILENT)


def mark_issued(session: Session, unit_ids: Sequence[int]) -> None:
    """Note that pending units were sent to the workers just now, but for those that a worker takes at this moment."""
    pending = select(Unit.id).where(Unit.id.in_(unit_ids), Unit.state == "pending").order_by(Unit.id)
    issued = update(Unit).where(Unit.id.in_(pending.with_for_update(skip_locked=True)))
    session.execute(issued.values(issued_at=db_now()), execution_options=SILENT)


@dataclass(frozen=True, slots=True)
class StageCounts:
    """How many units of a kind a round has in each state, and how many items those have that are done."""

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
    """A unit as the coordinator sees it; `token` is what a message about it carries."""

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
    """By kind of unit; a kind that the round has no unit of is left out."""
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
    """At most `limit` pending units of a kind that may begin, in planned order.

    With `reissue_after_s`, those that were sent to the workers less than so many seconds ago are left out.
    """
    query = _unit_rows().where(Unit.round_id == round_id, Unit.kind == kind, is_due()).order_by(Unit.id).limit(limit)
    if reissue_after_s is not None:
        query = query.where(or_(Unit.issued_at.is_(None), Unit.issued_at <= db_later(-reissue_after_s)))
    return [UnitRow(*row) for row in session.execute(query)]


def num_in_flight(session: Session, run_id: int, kind: str, *, sent_within_s: float | None = None) -> int:
    """How many units of a kind the workers hold or have been sent (in the last seconds), over the run's open rounds."""
    of_run = (Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES))
    leased = select(func.sum(StageCount.num_leased)).join(Round, Round.id == StageCount.round_id)
    sent = select(func.count()).select_from(Unit).where(in_state("pending"), Unit.issued_at.is_not(None))
    if sent_within_s is not None:
        sent = sent.where(Unit.issued_at > db_later(-sent_within_s))
    round_ids = select(Round.id).where(*of_run)
    num_leased = session.scalar(leased.where(*of_run, StageCount.kind == kind)) or 0
    return int(num_leased) + (session.scalar(sent.where(Unit.round_id.in_(round_ids), Unit.kind == kind)) or 0)


def first_dead(session: Session, round_id: int, kind: str | None = None) -> UnitRow | None:
    """The first dead unit of a round (of a kind), which says why the round cannot go on."""
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
    """Count units that went from one state to another; `num_items` and `seconds` are of those that are done.

    No more items are done than were planned: a training has as many as it says when it is under way, and none before.
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


def make_ready(session: Session, round_id: int, first_row: int, stop_row: int) -> None:
    """Let those assessments begin whose rows are all settled, now that a drawing of these rows is done or dead.

    Call it after the counts of the drawings were changed in the same transaction; see the module.
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


def _covering(
    session: Session, round_id: int, kind: str, first_row: int, stop_row: int, condition: ColumnElement[bool]
) -> Sequence[tuple[int, int, int]]:
    """(id, first row, stop row) of the units of a kind that cover any of these rows; reads no others."""
    of_kind = (Unit.round_id == round_id, Unit.kind == kind)
    begins = select(func.max(Unit.first_row)).where(*of_kind, Unit.first_row <= first_row).scalar_subquery()
    query = select(Unit.id, Unit.first_row, Unit.stop_row).where(
        *of_kind, Unit.first_row >= func.coalesce(begins, 0), Unit.first_row < stop_row, condition
    )
    return [(id_, first or 0, stop or 0) for id_, first, stop in session.execute(query)]
