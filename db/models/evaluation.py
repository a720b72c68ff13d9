"""Evaluations: what a suite measured of a model version, item by item, so that versions can be paired."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, Sha256, State, one_of

SUITES = ("heldout", "understanding", "diversity", "editing")


class Evaluation(Base):
    """One suite on one model version. `plan_sha256` is over prompts, seeds and sampling: equal plans, equal items.

    `value` lies in 0..1: the share of items that passed, or the diversity.
    """

    __tablename__ = "evaluations"
    __table_args__ = (
        UniqueConstraint("model_version_id", "suite", "plan_sha256"),
        CheckConstraint(one_of("suite", SUITES), name="suite_known"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    suite: Mapped[str] = mapped_column(State)
    plan_sha256: Mapped[str] = mapped_column(Sha256)
    num_items: Mapped[int]
    value: Mapped[float]
    created_at: Mapped[datetime]


class EvaluationItem(Base):
    """One item's outcome. The first held-out draws keep their image, so that versions can be seen side by side."""

    __tablename__ = "evaluation_items"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    passed: Mapped[bool]
    prompt_id: Mapped[int | None] = mapped_column(ForeignKey("prompts.id"))
    image_sha256: Mapped[str | None] = mapped_column(Sha256)
