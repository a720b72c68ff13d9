"""Tables of samples, their assessments, and their reviews by people."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    SmallInteger,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, ImageIdsType, JsonOrNull, Sha256, State, one_of

ASSESSORS = ("self", "checker", "frozen", "teacher", "human")


class Sample(Base):
    """One image drawn for one prompt of a round; (round, prompt, sample index) is its natural key.

    `staleness` is the number of earlier rounds that were undecided when the sample's round was planned.
    """

    __tablename__ = "samples"
    __table_args__ = (
        UniqueConstraint("round_id", "prompt_id", "sample_index"),
        UniqueConstraint("id", "prompt_id"),
        # The index serves pages of a round in the order of ids.
        Index("ix_samples_round_id_id", "round_id", "id"),
        ForeignKeyConstraint(["round_id", "prompt_id"], ["round_prompts.round_id", "round_prompts.prompt_id"]),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(BigId)
    prompt_id: Mapped[int] = mapped_column(BigId)
    sample_index: Mapped[int]
    seed: Mapped[int] = mapped_column(BigId)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    image_ids: Mapped[NDArray[np.int32]] = mapped_column(ImageIdsType)
    image_sha256: Mapped[str] = mapped_column(Sha256)
    created_at: Mapped[datetime]
    staleness: Mapped[int] = mapped_column(SmallInteger, default=0, server_default="0")


class Assessment(Base):
    """One assessor's assessment of one sample. Only the state `ok` has a score: a failure is never scored 0.

    The self assessor's score is a number like log-odds, and higher is better. The checker's is 1 or 0.
    `model_version_id` is the model that judged. It is NULL for the checker and for people, whose rows have a unique
    index of their own, because NULLs are distinct. `details` holds the basis of the score: readings by name, and
    questions with their log-odds. `critique` is the written assessment. `probability` is the calibrated probability
    that the image is right.
    """

    __tablename__ = "assessments"
    __table_args__ = (
        UniqueConstraint("sample_id", "assessor", "model_version_id"),
        Index(
            "uq_assessments_without_model",
            "sample_id",
            "assessor",
            unique=True,
            sqlite_where=text("model_version_id IS NULL"),
            postgresql_where=text("model_version_id IS NULL"),
        ),
        CheckConstraint(one_of("assessor", ASSESSORS), name="assessor_known"),
        CheckConstraint(one_of("state", ("ok", "abstained", "failed")), name="state_known"),
        CheckConstraint("(state = 'ok') = (score IS NOT NULL)", name="only_ok_is_scored"),
        CheckConstraint("probability BETWEEN 0 AND 1", name="probability_is_one"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"))
    assessor: Mapped[str] = mapped_column(State)
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    state: Mapped[str] = mapped_column(State)
    score: Mapped[float | None]
    failed_criteria: Mapped[list[Any]]
    error: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    critique: Mapped[dict[str, Any] | None] = mapped_column(JsonOrNull)
    probability: Mapped[float | None]


VERDICTS = ("agree", "disagree", "skip")

REASONS = ("chosen", "disagreement", "boundary", "random", "overlap")

UNKNOWN_REVIEWER = "unknown"
"""The reviewer of reviews from releases that did not ask for a name."""


class Review(Base):
    """One person's review of one sample. A skip is no verdict; it is stored so that the sample is not shown again.

    `reason` is why the sample was shown. Only the reviews with the reason `random` are a fair sample of all images.
    """

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("sample_id", "reviewer"),
        CheckConstraint(one_of("verdict", VERDICTS), name="verdict_known"),
        CheckConstraint(one_of("reason", REASONS), name="reason_known"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"))
    reviewer: Mapped[str] = mapped_column(String(64))
    verdict: Mapped[str] = mapped_column(State)
    criteria: Mapped[dict[str, Any]]
    comment: Mapped[str] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(State)
    created_at: Mapped[datetime]
