"""Workers and the queues that they serve. Ages are seconds by the database's clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.clock import seconds_since
from db.models import Round, StageCount, Unit, Worker
from db.models.round import TERMINAL_STATES
from db.models.unit import ROLE_OF_KIND, ROLES, is_due
from db.models.worker import shown_state


def workers_table(session: Session) -> list[dict[str, Any]]:
    """One object per worker by name: name, role (joined by "+"), host, pid, device, model_version, items_done,
    progress_age_s, heartbeat_age_s, state (`lost` for one that was silent too long), drain_requested, unit (held, or
    None)."""
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
    """How many workers would take a unit of this kind: running, not asked to drain, last heard of within max_age_s."""
    alive = select(Worker.roles).where(
        Worker.state == "running",
        Worker.drain_requested.is_(False),
        seconds_since(Worker.heartbeat_at) <= max_age_s,
    )
    return sum(ROLE_OF_KIND[kind] in roles for roles in session.scalars(alive))


def queue_table(session: Session, run_id: int | None = None) -> list[dict[str, Any]]:
    """One object per role, over the open rounds of a run or of all: depth (units that could be taken now), leased,
    and oldest_age_s (since when the oldest of them waits; None where none does)."""
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
