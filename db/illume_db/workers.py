"""Workers: their registration, heartbeats and end, the request to drain, and the queues that they serve.

All ages are seconds by the database's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import CursorResult, delete, func, insert, select, update
from sqlalchemy.orm import Session

from illume_db.clock import db_now, seconds_since
from illume_db.tables import Round, StageCount, Unit, Worker
from illume_db.tables.rounds import TERMINAL_STATES
from illume_db.tables.units import ENDED_STATES, ROLE_OF_KIND, ROLES, is_due, is_gone, shown_state

GONE_KEPT_S = 24 * 3600.0
"""Seconds for which the row of a worker that is gone is kept, so that a person can see how it ended."""

MAX_GONE_ROWS = 200
"""The most rows of gone workers that are kept. A worker that crashes at its start leaves thousands of rows in a day."""


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
    """Add a worker that begins. Delete an earlier one of the same name, and old rows of gone workers."""
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
    """Delete the rows of workers that were gone for `GONE_KEPT_S`, and all but the last `MAX_GONE_ROWS` of the others.

    Each worker calls this at its start, because only a new worker adds a row. No table refers to these rows: a unit
    holds the name of its worker.
    """
    latest = select(Worker.id).where(is_gone()).order_by(Worker.heartbeat_at.desc(), Worker.id.desc())
    beyond = list(session.scalars(latest.offset(MAX_GONE_ROWS)))
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
    """Store a heartbeat, with the items done since the worker's start; return whether the worker was asked to drain."""
    alive = update(Worker).where(Worker.name == name)
    alive = alive.values(
        state=state, unit_key=unit_key, items_done=items_done, model_version=model_version, heartbeat_at=db_now()
    )
    if progressed:
        alive = alive.values(progress_at=db_now())
    session.execute(alive)
    return bool(session.scalar(select(Worker.drain_requested).where(Worker.name == name)))


def request_drain(session: Session, name: str) -> bool:
    """Ask a worker to finish its unit and stop; return False if there is no such worker or it has ended."""
    asked = update(Worker).where(Worker.name == name, Worker.state.not_in(ENDED_STATES)).values(drain_requested=True)
    return cast("CursorResult[Any]", session.execute(asked)).rowcount == 1


def mark_stopped(session: Session, name: str, state: str) -> None:
    """Record a worker's end with the state `stopped` or `unhealthy`."""
    ended = update(Worker).where(Worker.name == name)
    session.execute(ended.values(state=state, unit_key=None, heartbeat_at=db_now()))


def workers_table(session: Session) -> list[dict[str, Any]]:
    """Return one object per worker, by name.

    Keys: name, role (roles joined by "+"), host, pid, device, model_version, items_done, progress_age_s,
    heartbeat_age_s, state (`lost` if it was silent for too long), drain_requested, unit (the unit that it holds, or
    None).
    """
    ages = seconds_since(Worker.progress_at), seconds_since(Worker.heartbeat_at)
    query = select(Worker, *ages, shown_state()).order_by(Worker.name)
    return [
        {
            "name": worker.name,
            "role": "+".join(worker.roles),
            "host": worker.host,
            "pid": worker.pid,
            "device": worker.device,
            "model_version": worker.model_version,
            "items_done": worker.items_done,
            "progress_age_s": round(progress_age, 3),
            "heartbeat_age_s": round(heartbeat_age, 3),
            "state": state,
            "drain_requested": worker.drain_requested,
            "unit": worker.unit_key,
        }
        for worker, progress_age, heartbeat_age, state in session.execute(query)
    ]


def live_workers(session: Session, kind: str, max_age_s: float) -> int:
    """Count the workers that would take a unit of this kind.

    They are running, were not asked to drain, and had their last heartbeat within `max_age_s`.
    """
    alive = select(Worker.roles).where(
        Worker.state == "running",
        Worker.drain_requested.is_(False),
        seconds_since(Worker.heartbeat_at) <= max_age_s,
    )
    return sum(ROLE_OF_KIND[kind] in roles for roles in session.scalars(alive))


def queue_table(session: Session, run_id: int | None = None) -> list[dict[str, Any]]:
    """Return one object per role, over the open rounds of one run or of all runs.

    Keys: role, depth (units that could be leased now), leased, and oldest_age_s (how long the oldest of the waiting
    units has waited; None if none waits).
    """
    rounds = select(Round.id).where(Round.state.not_in(TERMINAL_STATES))
    if run_id is not None:
        rounds = rounds.where(Round.run_id == run_id)
    round_ids = list(session.scalars(rounds))
    table: dict[str, dict[str, Any]] = {
        role: {"role": role, "depth": 0, "leased": 0, "oldest_age_s": None} for role in ROLES
    }
    waiting = (
        select(Unit.kind, func.count(), seconds_since(func.min(Unit.ready_at)))
        .where(Unit.round_id.in_(round_ids), is_due())
        .group_by(Unit.kind)
    )
    for kind, depth, age in session.execute(waiting):
        row = table[ROLE_OF_KIND[kind]]
        row["depth"] += depth
        row["oldest_age_s"] = max(round(age, 3), row["oldest_age_s"] or 0.0)
    leased = (
        select(StageCount.kind, func.sum(StageCount.num_leased))
        .where(StageCount.round_id.in_(round_ids))
        .group_by(StageCount.kind)
    )
    for kind, num_leased in session.execute(leased):
        table[ROLE_OF_KIND[kind]]["leased"] += int(num_leased)
    return list(table.values())
