"""Keeping the counts of a stage in step with its units, and knowing which assessments may begin.

Both happen in the transaction that changes the unit. The row of counts is changed first and stays locked until the
commit, so of two transactions that finish the last two drawings of an assessment, the second sees the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, case, func, insert, select, update
from sqlalchemy.orm import Session

from db.clock import db_now
from db.models import StageCount, Unit

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
