"""Adding rounds, moving them from state to state, and recording how they ended."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, insert, update
from sqlalchemy.orm import Session

from db.models import GateDecision, Round, RoundPrompt


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
    """Add a planned round with the prompts that it will draw, in order, with the version that is its parent so far.

    `retry_of_id` is the ended round that it runs again.
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
    """Move a round if it is still in `current`; False where someone else has moved it. `values` are set with it."""
    change = update(Round).where(Round.id == round_id, Round.state == current).values(state=target, **values)
    return cast("CursorResult[Any]", session.execute(change)).rowcount == 1


def request_retry(session: Session, round_id: int, at: datetime) -> bool:
    """Ask for an ended round to be run again; False where that was asked for before."""
    change = update(Round).where(Round.id == round_id, Round.retry_requested_at.is_(None))
    return cast("CursorResult[Any]", session.execute(change.values(retry_requested_at=at))).rowcount == 1


def count_samples(session: Session, round_id: int, more: int) -> None:
    """Raise the round's count of samples by `more`."""
    session.execute(update(Round).where(Round.id == round_id).values(num_samples=Round.num_samples + more))


def set_candidate(session: Session, round_id: int, version_id: int) -> None:
    """Name the model version that this round trained."""
    session.execute(update(Round).where(Round.id == round_id).values(candidate_version_id=version_id))


def add_decision(
    session: Session, round_id: int, *, decision: str, reasons: Sequence[str], numbers: dict[str, Any], at: datetime
) -> None:
    """Record the gate's decision on a round."""
    session.add(
        GateDecision(round_id=round_id, decision=decision, reasons=list(reasons), numbers=numbers, decided_at=at)
    )
    session.flush()
