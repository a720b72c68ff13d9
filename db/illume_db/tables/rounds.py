"""Tables of rounds and of the gate's decisions on them."""

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
    """One turn of the loop. It holds counts, so that a read of the rounds counts no samples.

    `drawing_version` draws the round's samples; it is fixed when the round is planned. The candidate has to beat
    `parent_version`. That is the drawing version until the round's samples are assessed, and then the version that is
    active. The two can differ if the round was planned while earlier rounds were undecided; `staleness` is the number
    of those rounds.

    A person may request that a failed or cancelled round is run again, at `retry_requested_at`. The round that does it
    draws the same prompts, and its `retry_of_id` is the old round.

    Invariants (triggers, see the migrations):

    - A terminal state never changes.
    - Every round has a drawing version.
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
    # SQLite can add a column with a foreign key only if it is nullable; a trigger refuses NULL.
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
    """The gate's decision on a round's candidate, with its reasons and the numbers behind it."""

    __tablename__ = "gate_decisions"
    __table_args__ = (CheckConstraint(one_of("decision", ("promoted", "rejected")), name="decision_known"),)

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    decision: Mapped[str] = mapped_column(State)
    reasons: Mapped[list[Any]]
    numbers: Mapped[dict[str, Any]]
    decided_at: Mapped[datetime]
