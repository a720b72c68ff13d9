"""What a training keeps of itself while it goes on: rows of its checkpoints, fenced by the lease of its unit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from illume_db.leases import Lease, hold_lease
from illume_db.tables import Round, TrainingCheckpoint


def keep_training_checkpoint(
    session: Session, lease: Lease, *, step: int, folder: str, files: dict[str, Any], at: datetime
) -> int:
    """Add a checkpoint's row; its id. Raises FencedOutError where the lease is lost."""
    hold_lease(session, lease)
    row = TrainingCheckpoint(round_id=lease.round_id, step=step, folder=folder, files=files, created_at=at)
    session.add(row)
    session.flush()
    return row.id


def mark_checkpoints(session: Session, ids: Sequence[int], state: str) -> None:
    """Set the state of checkpoints: `damaged` or `dropped`."""
    session.execute(update(TrainingCheckpoint).where(TrainingCheckpoint.id.in_(ids)).values(state=state))


def drop_checkpoints_of_round(session: Session, round_id: int) -> None:
    """Let no training of the round go on from what it kept."""
    of_round = (TrainingCheckpoint.round_id == round_id, TrainingCheckpoint.state != "dropped")
    session.execute(update(TrainingCheckpoint).where(*of_round).values(state="dropped"))


def drop_checkpoints_of_run(session: Session, run_id: int) -> int:
    """Let the run's trainings begin anew: none of their checkpoints counts any more. How many there were."""
    rounds = select(Round.id).where(Round.run_id == run_id)
    rows = session.scalars(
        select(TrainingCheckpoint).where(TrainingCheckpoint.round_id.in_(rounds), TrainingCheckpoint.state != "dropped")
    ).all()
    mark_checkpoints(session, [row.id for row in rows], "dropped")
    return len(rows)


def checkpoints_of_training(session: Session, round_id: int) -> Sequence[TrainingCheckpoint]:
    """The checkpoints of a round's training that were not dropped, damaged ones too, the newest first."""
    query = select(TrainingCheckpoint).where(
        TrainingCheckpoint.round_id == round_id, TrainingCheckpoint.state != "dropped"
    )
    return session.scalars(query.order_by(TrainingCheckpoint.step.desc(), TrainingCheckpoint.id.desc())).all()
