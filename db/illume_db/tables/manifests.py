"""Tables of manifests, their training rows, and the checkpoints of a training."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, Sha256, State, one_of

KINDS = ("draw", "read", "pair", "assess", "correct", "edit")


class Manifest(Base):
    """The immutable list of all training rows of one round; triggers refuse every change.

    `sha256` is over the canonical lines of the rows. `counts` are curation's counts of the round's own samples,
    including how many it left out for each reason.
    """

    __tablename__ = "manifests"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), unique=True)
    sha256: Mapped[str] = mapped_column(Sha256)
    num_rows: Mapped[int]
    counts: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    created_at: Mapped[datetime]


class Example(Base):
    """A training row: a sample of the loop, or a replayed real pair with the number `real_index`.

    - `pair` has two samples of one prompt; `rejected_id` is the worse one.
    - `assess` has the written assessment of the sample as its `answer`.
    - `correct` has the written assessment of the worse sample as its `answer`, and the better sample as the correction.
    - `edit` has an image that was made from the source image of its prompt.

    `ids_sha256` and `rejected_sha256` are over the samples' image-token ids.

    Invariants:

    - The prompt of a sample's row is in the split `train`, so held-out and probe prompts are never trained on.
    - The samples of a row are of the row's prompt.
    - A row with a prompt has the prompt's text. No row has the text of a held-out or probe prompt. Triggers refuse
      other rows.
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
    """The full state of a round's training after `step` optimizer steps: weights, optimizer, schedule, random states.

    A checkpoint exists only if it has a row: a killed process may leave a half-written folder, which has none. `files`
    maps the name of each file in `folder` to its `num_bytes` and `sha256`. The files of a `damaged` checkpoint do not
    match them. A `dropped` checkpoint is no longer used.
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
