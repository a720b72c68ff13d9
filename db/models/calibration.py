"""The calibration of a run's judge, and how far each round's candidate drifted from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, Sha256


class Calibration(Base):
    """The one calibration of a run, fixed before its first round. `sha256` is over its canonical content; a trigger
    refuses every change."""

    __tablename__ = "calibrations"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    sha256: Mapped[str] = mapped_column(Sha256)
    content: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Drift(Base):
    """How a round's candidate judges some of the round's samples, compared with the run's base, the frozen judge.

    `shift` is the mean difference of calibrated log-odds; `auc` is how well the candidate's tell what the frozen judge
    takes for right from the rest, and None where it takes all of them for the same; `num_failed` of the
    samples got no number from the candidate.
    """

    __tablename__ = "drifts"

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    num_samples: Mapped[int]
    shift: Mapped[float]
    auc: Mapped[float | None]
    num_failed: Mapped[int]
    created_at: Mapped[datetime]
