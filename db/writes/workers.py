"""What workers tell of themselves, and the one thing that they are told: to drain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, delete, insert, select, update
from sqlalchemy.orm import Session

from db.clock import db_now, seconds_since
from db.models import Worker
from db.models.worker import GONE, is_gone

GONE_KEPT_S = 24 * 3600.0
"""Seconds for which the row of a worker that is gone is kept, so that one can see how it ended."""
MOST_GONE = 200
"""Rows of gone workers that are kept at most: one that crashes at its start leaves thousands in a day."""


def register_worker(
    session: Session,
    *,
    name: str,
    host: str,
    pid: int,
    roles: Sequence[str],
    device: str,
    heartbeat_s: float = 5.0,
) -> None:
    """Add a worker that begins; an earlier one of the same name is forgotten, and so are those long gone."""
    session.execute(delete(Worker).where(Worker.name == name))
    forget_gone(session)
    now = db_now()
    session.execute(
        insert(Worker).values(
            name=name,
            host=host,
            pid=pid,
            roles=list(roles),
            device=device,
            state="running",
            drain_requested=False,
            items_done=0,
            heartbeat_s=heartbeat_s,
            started_at=now,
            heartbeat_at=now,
            progress_at=now,
        )
    )


def forget_gone(session: Session) -> None:
    """Delete the rows of workers that were gone for `GONE_KEPT_S`, and all but the last `MOST_GONE` of the others.

    Only what is added can grow, so each worker that begins does it. Nothing refers to these rows: units and samples
    have the names of their workers.
    """
    latest = select(Worker.id).where(is_gone()).order_by(Worker.heartbeat_at.desc(), Worker.id.desc())
    beyond = list(session.scalars(latest.offset(MOST_GONE)))
    too_old = is_gone() & (seconds_since(Worker.heartbeat_at) > GONE_KEPT_S)
    session.execute(delete(Worker).where(too_old | Worker.id.in_(beyond)))


def beat(
    session: Session,
    name: str,
    *,
    state: str,
    unit_key: str | None,
    items_done: int,
    model_version: str | None,
    progressed: bool,
) -> bool:
    """A heartbeat, with all that the worker did since it began; whether it was asked to drain."""
    alive = update(Worker).where(Worker.name == name)
    alive = alive.values(
        state=state, unit_key=unit_key, items_done=items_done, model_version=model_version, heartbeat_at=db_now()
    )
    if progressed:
        alive = alive.values(progress_at=db_now())
    session.execute(alive)
    return bool(session.scalar(select(Worker.drain_requested).where(Worker.name == name)))


def request_drain(session: Session, name: str) -> bool:
    """Ask a worker to finish its unit and stop; False where none of this name is at work."""
    asked = update(Worker).where(Worker.name == name, Worker.state.not_in(GONE)).values(drain_requested=True)
    return cast("CursorResult[Any]", session.execute(asked)).rowcount == 1


def mark_stopped(session: Session, name: str, state: str) -> None:
    """A worker's last word: `stopped`, or `unhealthy`."""
    ended = update(Worker).where(Worker.name == name)
    session.execute(ended.values(state=state, unit_key=None, heartbeat_at=db_now()))
