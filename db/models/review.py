"""Reviews: what each person said of a sample, from which the sample's one `human` assessment follows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, State, one_of

VERDICTS = ("agree", "disagree", "skip")
REASONS = ("chosen", "disagreement", "boundary", "random", "overlap")
UNKNOWN_REVIEWER = "unknown"
"""Who wrote the reviews of releases that did not ask."""


class Review(Base):
    """What one person said of one sample; a skip says nothing, and is kept so that it is not asked for again.

    `reason` is why it was shown: only those of the random share are a fair sample of all images.
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
