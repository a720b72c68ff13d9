"""Tables of a round and of the gate's decision on it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, State, one_of

ROUND_STATES = (
    "planned",
    "sampling",
    "assessing",
    "curating",
    "training",
    "gating",
    "promoted",
    "rejected",
    "failed",
    "cancelled",
)

TERMINAL_STATES = ("promoted", "rejected", "failed", "cancelled")


class Round(Base):
    """One turn of the loop. Counts are kept here, so that reading a table never counts samples.

    Its samples are drawn by `drawing_version`, fixed when it is planned; its candidate has to beat `parent_version`,
    which is that version too until the round's samples are assessed and then the one that is active. They differ where
    the round was planned while earlier ones were undecided: `staleness` is how many those were. Triggers (see the
    migrations) refuse every change of a terminal state, and a round without a drawing version.

    A person may ask for a failed or cancelled round to be run again: `retry_requested_at` is when that was, and the
    round that does it, which draws the same prompts, names it as `retry_of`.
    """

    __tablename__ = "rounds"
    __table_args__ = (
        UniqueConstraint("run_id", "index"),
        CheckConstraint(one_of("state", ROUND_STATES), name="state_known"),
        CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_says_why"),
        CheckConstraint('"index" >= 1', name="index_from_one"),
        Index("uq_rounds_retry_of_id", "retry_of_id", unique=True),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    index: Mapped[int]
    state: Mapped[str] = mapped_column(State)
    parent_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    # Nullable only because SQLite adds no other column that refers to a table; a trigger refuses NULL.
    drawing_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), nullable=True)
    staleness: Mapped[int] = mapped_column(default=0, server_default="0")
    candidate_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"), unique=True)
    error: Mapped[str | None] = mapped_column(Text)
    num_samples: Mapped[int] = mapped_column(default=0)
    num_accepted: Mapped[int] = mapped_column(default=0)
    judge_auc: Mapped[float | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    retry_requested_at: Mapped[datetime | None]
    retry_of_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))


class GateDecision(Base):
    """Why a candidate did or did not replace its parent, with the numbers that decided."""

    __tablename__ = "gate_decisions"
    __table_args__ = (CheckConstraint(one_of("decision", ("promoted", "rejected")), name="decision_known"),)

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    decision: Mapped[str] = mapped_column(State)
    reasons: Mapped[list[Any]]
    numbers: Mapped[dict[str, Any]]
    decided_at: Mapped[datetime]
