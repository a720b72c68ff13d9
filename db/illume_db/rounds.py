"""Rounds: add them, move them from state to state, record their decisions, and find them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, insert, select, update
from sqlalchemy.orm import Session, aliased

from illume_db.tables import (
    GateDecision,
    Round,
    RoundPrompt,
)
from illume_db.tables.rounds import TERMINAL_STATES


def add_round(
    session: Session,
    run_id: int,
    index: int,
    *,
    parent_version_id: int,
    prompt_ids: Sequence[int],
    at: datetime,
    staleness: int = 0,
    retry_of_id: int | None = None,
) -> Round:
    """Add a planned round with its prompts in drawing order; its samples are drawn with the parent version.

    `retry_of_id` is the ended round that the new round runs again.
    """
    round_ = Round(
        run_id=run_id,
        index=index,
        state="planned",
        parent_version_id=parent_version_id,
        drawing_version_id=parent_version_id,
        staleness=staleness,
        retry_of_id=retry_of_id,
        created_at=at,
    )
    session.add(round_)
    session.flush()
    rows = [
        {"round_id": round_.id, "position": position, "prompt_id": prompt_id, "split": "train"}
        for position, prompt_id in enumerate(prompt_ids)
    ]
    session.execute(insert(RoundPrompt), rows)
    return round_


def move_round(session: Session, round_id: int, current: str, target: str, **values: Any) -> bool:
    """Move a round from the state `current` to `target` and set `values`; return False if it has left `current`."""
    change = update(Round).where(Round.id == round_id, Round.state == current).values(state=target, **values)
    return cast("CursorResult[Any]", session.execute(change)).rowcount == 1


def request_retry(session: Session, round_id: int, at: datetime) -> bool:
    """Store the request to run an ended round again; return False if it was requested before."""
    change = update(Round).where(Round.id == round_id, Round.retry_requested_at.is_(None))
    return cast("CursorResult[Any]", session.execute(change.values(retry_requested_at=at))).rowcount == 1


def count_samples(session: Session, round_id: int, more: int) -> None:
    """Raise the round's count of samples by `more`."""
    session.execute(update(Round).where(Round.id == round_id).values(num_samples=Round.num_samples + more))


def set_candidate(session: Session, round_id: int, version_id: int) -> None:
    """Set the model version that this round trained."""
    session.execute(update(Round).where(Round.id == round_id).values(candidate_version_id=version_id))


def add_decision(
    session: Session, round_id: int, *, decision: str, reasons: Sequence[str], numbers: dict[str, Any], at: datetime
) -> None:
    """Record the gate's decision on a round."""
    session.add(
        GateDecision(round_id=round_id, decision=decision, reasons=list(reasons), numbers=numbers, decided_at=at)
    )
    session.flush()


def latest_round(session: Session, run_id: int) -> Round | None:
    """Return the round with the highest index; None if the run has no round."""
    return session.scalar(select(Round).where(Round.run_id == run_id).order_by(Round.index.desc()).limit(1))


def open_rounds(session: Session, run_id: int) -> list[Round]:
    """Return the rounds that have not ended, in order."""
    query = select(Round).where(Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES)).order_by(Round.index)
    return list(session.scalars(query))


def decision_of(session: Session, round_id: int) -> GateDecision | None:
    """Return the gate's decision on a round; None if there is none."""
    return session.get(GateDecision, round_id)


def round_of(session: Session, round_id: int) -> Round:
    """Return a round by its id."""
    return session.get_one(Round, round_id)


def round_at(session: Session, run_id: int, index: int) -> Round:
    """Return the round of a run with this index. Raises NoResultFound if there is none."""
    return session.scalars(select(Round).where(Round.run_id == run_id, Round.index == index)).one()


def rounds_before(session: Session, run_id: int, index: int) -> Sequence[Round]:
    """Return a run's rounds before the one with this index, in order."""
    return session.scalars(select(Round).where(Round.run_id == run_id, Round.index < index).order_by(Round.index)).all()


def find_round(session: Session, run_id: int, index: int) -> Round | None:
    """Return the round of a run with this index; None if there is none."""
    return session.scalar(select(Round).where(Round.run_id == run_id, Round.index == index))


def round_of_candidate(session: Session, version_id: int) -> Round | None:
    """Return the round that trained a version; None for a base."""
    return session.scalar(select(Round).where(Round.candidate_version_id == version_id))


def waiting_retries(session: Session, run_id: int) -> list[Round]:
    """Return the ended rounds whose requested retry is not planned yet, the earliest request first."""
    again = aliased(Round)
    planned = select(again.id).where(again.retry_of_id == Round.id)
    query = select(Round).where(Round.run_id == run_id, Round.retry_requested_at.is_not(None), ~planned.exists())
    return list(session.scalars(query.order_by(Round.retry_requested_at, Round.index)))


def retry_of(session: Session, round_id: int) -> Round | None:
    """Return the round that runs this one again; None if there is none yet."""
    return session.scalar(select(Round).where(Round.retry_of_id == round_id))


def total_rounds(session: Session, run_id: int, num_rounds: int) -> int:
    """Return how many rounds a run of `num_rounds` will have in all. Retries come on top of `num_rounds`."""
    requested = select(func.count()).where(Round.run_id == run_id, Round.retry_requested_at.is_not(None))
    last_index = session.scalar(select(func.max(Round.index)).where(Round.run_id == run_id)) or 0
    waiting = len(waiting_retries(session, run_id))
    return max(num_rounds + (session.scalar(requested) or 0), last_index + waiting if waiting else 0)


def num_retries(session: Session, run_id: int) -> int:
    """Return how many rounds of a run are retries."""
    return session.scalar(select(func.count()).where(Round.run_id == run_id, Round.retry_of_id.is_not(None))) or 0
