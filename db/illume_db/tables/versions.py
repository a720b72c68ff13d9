"""Tables of model versions and of their measurements: evaluations, calibrations and judge drift."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, JsonOrNull, Sha256, State, one_of

VERSION_STATES = ("candidate", "active", "rejected", "retired")


class ModelVersion(Base):
    """A checkpoint of a run, named by its number (v0001 is the run's base) and by the digest of its files."""

    __tablename__ = "model_versions"
    __table_args__ = (
        UniqueConstraint("run_id", "number"),
        CheckConstraint(one_of("state", VERSION_STATES), name="state_known"),
        Index(
            "uq_model_versions_one_active",
            "run_id",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"))
    number: Mapped[int]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    state: Mapped[str] = mapped_column(State)
    sha256: Mapped[str] = mapped_column(Sha256)
    num_bytes: Mapped[int] = mapped_column(BigId)
    origin: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]

    @property
    def name(self) -> str:
        """The version's name in tables and on the command line: v0001, v0002, ..."""
        return version_name(self.number)


def version_name(number: int) -> str:
    """Return a version's name: v0001 for 1."""
    return f"v{number:04d}"


SUITES = ("heldout", "understanding", "diversity", "editing", "decode", "best-of")

GUARDED = ("understanding", "diversity", "editing")
"""The suites of the gate's guards."""


class Evaluation(Base):
    """The result of one suite on one model version.

    `value` is in 0..1: the diversity, or the share of items that are right. The items of `best-of` are all draws, and
    its value is the share of prompts whose chosen draw is right. `plan_sha256` is over prompts, seeds and sampling, so
    evaluations under equal plans have equal items. `decode` has the guidance scale, temperature, top-k and top-p; it is
    None for an evaluation of an older release.
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
    decode: Mapped[dict[str, Any] | None] = mapped_column(JsonOrNull)
    created_at: Mapped[datetime]


class EvaluationItem(Base):
    """The outcome of one item of an evaluation.

    The first held-out draws keep their images, so that a person can compare versions side by side.
    """

    __tablename__ = "evaluation_items"

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    passed: Mapped[bool]
    prompt_id: Mapped[int | None] = mapped_column(ForeignKey("prompts.id"))
    image_sha256: Mapped[str | None] = mapped_column(Sha256)


class Calibration(Base):
    """The one calibration of a run, fixed before its first round; a trigger refuses every change.

    `sha256` is over the canonical content.
    """

    __tablename__ = "calibrations"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(Sha256)
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Drift(Base):
    """A candidate's drift as a judge: its readings of some of the round's samples beside those of the frozen judge.

    The frozen judge is the run's base. `shift` is the mean difference of calibrated log-odds. `auc` is how well the
    candidate's log-odds separate the samples that the frozen judge takes for right from the others; it is None if the
    frozen judge gives all of them the same verdict. `num_failed` samples got no number from the candidate.
    """

    __tablename__ = "drifts"

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    num_samples: Mapped[int]
    shift: Mapped[float]
    auc: Mapped[float | None]
    num_failed: Mapped[int]
    created_at: Mapped[datetime]
