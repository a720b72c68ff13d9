"""A run and its diary, for the command line."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.clock import db_now
from db.models import Event, Round, Run


def run_row(session: Session, run_id: int) -> dict[str, Any]:
    """The run: name, key, seed, settings (resolved), created_at."""
    run = session.get_one(Run, run_id)
    return {
        "name": run.name,
        "key": run.key,
        "seed": run.seed,
        "settings": run.settings,
        "created_at": run.created_at.isoformat(),
    }


def run_key(session: Session, run_id: int) -> str:
    """What names the run in its run directory, and nothing else anywhere."""
    return session.get_one(Run, run_id).key


def leader_of(session: Session, run_id: int) -> str | None:
    """The coordinator that leads the run now (its host and process), or None where none does."""
    return session.scalar(select(Run.leader).where(Run.id == run_id, Run.leader_expires_at >= db_now()))


def events(session: Session, run_id: int, *, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
    """Lines of the diary with an id above `after`, oldest first: id, at, round (index or None), kind, message."""
    query = (
        select(Event.id, Event.at, Round.index, Event.kind, Event.message)
        .outerjoin(Round, Round.id == Event.round_id)
        .where(Event.run_id == run_id, Event.id > after)
        .order_by(Event.id)
        .limit(limit)
    )
    return [
        {"id": id_, "at": at.isoformat(), "round": index, "kind": kind, "message": message}
        for id_, at, index, kind, message in session.execute(query)
    ]
