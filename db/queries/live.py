"""Marks that change when there is something new to see, cheap enough to be asked for every second."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Event, Review, Round, StageCount, Worker
from db.models.round import TERMINAL_STATES


def run_mark(session: Session, run_id: int) -> str:
    """Changes with a run's diary, with the items of its open rounds, and with what people say."""
    event = session.scalar(select(Event.id).where(Event.run_id == run_id).order_by(Event.id.desc()).limit(1))
    rounds = select(Round.id).where(Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES))
    work = select(
        func.sum(StageCount.items_done), func.sum(StageCount.num_leased), func.sum(StageCount.num_done)
    ).where(StageCount.round_id.in_(rounds))
    review = session.scalar(select(func.max(Review.id)))
    return "-".join(str(value or 0) for value in (event, *session.execute(work).one(), review))


def store_mark(session: Session) -> str:
    """Changes with every run of the database, and with its workers."""
    event = session.scalar(select(func.max(Event.id)))
    workers = select(func.count(), func.sum(Worker.items_done), func.max(Worker.heartbeat_at))
    return "-".join(str(value or 0) for value in (event, *session.execute(workers).one()))
