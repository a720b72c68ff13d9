"""Tables of manifests with their training rows, and of the checkpoints of a training."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, Sha256, State, one_of

KINDS = ("draw", "read", "pair", "assess", "correct", "edit")


class Manifest(Base):
    """All rows of one round. `sha256` is over the canonical lines of the rows; triggers refuse every change.

    `counts` tells what curation made of the round's own samples, and what it left out for which reason.
    """

    __tablename__ = "manifests"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), unique=True)
    sha256: Mapped[str] = mapped_column(Sha256)
    num_rows: Mapped[int]
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    created_at: Mapped[datetime]


class Example(Base):
    """One training row: a sample of the loop, or a replayed real pair (then `real_index` is its number).

    A pair is of two samples of one prompt, of which `rejected_id` is the worse. An assessment has its written `answer`:
    `assess` is one of the sample, `correct` is one of the worse sample with the better one as its correction. An `edit`
    is an image that was made of the source of its prompt. `ids_sha256` and `rejected_sha256` are over the samples'
    image-token ids.

    Held-out and probe prompts cannot get in: the prompt of a sample's row must be in the split `train`, each sample
    must be of that prompt, and triggers refuse a row whose text is not its prompt's, or is that of a prompt of another
    split.
    """

    __tablename__ = "examples"
    __table_args__ = (
        ForeignKeyConstraint(["prompt_id", "split"], ["prompts.id", "prompts.split"]),
        ForeignKeyConstraint(["sample_id", "prompt_id"], ["samples.id", "samples.prompt_id"]),
        ForeignKeyConstraint(["rejected_id", "prompt_id"], ["samples.id", "samples.prompt_id"]),
        CheckConstraint("split = 'train'", name="only_train"),
        CheckConstraint(one_of("kind", KINDS), name="kind_known"),
        CheckConstraint(
            "(sample_id IS NULL) = (prompt_id IS NULL) AND (sample_id IS NULL) = (ids_sha256 IS NULL)"
            " AND (sample_id IS NULL) = (real_index IS NOT NULL)",
            name="sample_or_real",
        ),
        CheckConstraint(
            "(kind IN ('pair', 'correct')) = (rejected_id IS NOT NULL)"
            " AND (rejected_id IS NULL) = (rejected_sha256 IS NULL)"
            " AND (rejected_id IS NULL OR sample_id IS NOT NULL)",
            name="pair_has_two",
        ),
        CheckConstraint(
            "(kind IN ('assess', 'correct')) = (answer IS NOT NULL) AND (answer IS NULL OR sample_id IS NOT NULL)",
            name="assessments_answer",
        ),
        CheckConstraint("rejected_id <> sample_id", name="pair_of_different"),
    )

    manifest_id: Mapped[int] = mapped_column(ForeignKey("manifests.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(State)
    text: Mapped[str] = mapped_column(Text, index=True)
    split: Mapped[str] = mapped_column(State, default="train")
    sample_id: Mapped[int | None] = mapped_column(BigId, index=True)
    prompt_id: Mapped[int | None] = mapped_column(BigId)
    ids_sha256: Mapped[str | None] = mapped_column(Sha256)
    real_index: Mapped[int | None]
    rejected_id: Mapped[int | None] = mapped_column(BigId, index=True)
    rejected_sha256: Mapped[str | None] = mapped_column(Sha256)
    answer: Mapped[str | None] = mapped_column(Text)


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
