"""What trainings have kept of themselves."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import TrainingCheckpoint


def checkpoints_of_training(session: Session, round_id: int) -> Sequence[TrainingCheckpoint]:
    """The checkpoints of a round's training that were not dropped, damaged ones too, the newest first."""
    query = select(TrainingCheckpoint).where(
        TrainingCheckpoint.round_id == round_id, TrainingCheckpoint.state != "dropped"
    )
    return session.scalars(query.order_by(TrainingCheckpoint.step.desc(), TrainingCheckpoint.id.desc())).all()
