"""Checkpoints of trainings that are under way: what a training that was killed goes on from."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, State, one_of

CHECKPOINT_STATES = ("kept", "damaged", "dropped")


class TrainingCheckpoint(Base):
    """A whole state of a round's training after `step` optimiser steps: weights, optimizer, schedule, random states.

    Only a row says that a checkpoint is there: a folder without one is what a killed process left half-written. `files`
    maps the name of each file in `folder` to its `num_bytes` and `sha256`. `damaged` ones were found not to match,
    `dropped` ones are no longer wanted.
    """

    __tablename__ = "training_checkpoints"
    __table_args__ = (
        UniqueConstraint("folder"),
        CheckConstraint(one_of("state", CHECKPOINT_STATES), name="state_known"),
        CheckConstraint("step >= 1", name="step_counts"),
        Index("ix_training_checkpoints_round", "round_id", "state"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    step: Mapped[int]
    folder: Mapped[str] = mapped_column(Text)
    files: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(State, default="kept")
    created_at: Mapped[datetime]
