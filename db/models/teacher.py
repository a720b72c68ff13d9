"""A run's calls to its teacher: the number that it has paid for, and the answers of units that are under way."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, Sha256


class TeacherBudget(Base):
    """Number of calls to the teacher that a run has paid for, besides those of `Run.teacher_calls`.

    It has a row of its own because a coordinator holds the run's row for whole transactions. A run without one has made
    no calls.
    """

    __tablename__ = "teacher_budgets"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    num_calls: Mapped[int]


class TeacherAnswer(Base):
    """An answer that is paid for and belongs to no assessment yet; None where the teacher said neither yes nor no.

    It is stored as soon as it is there and deleted in the transaction that stores the assessments, so a unit that is
    done again asks nothing twice.
    """

    __tablename__ = "teacher_answers"

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    image_sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    question_sha256: Mapped[str] = mapped_column(Sha256, primary_key=True)
    answer: Mapped[bool | None]
    created_at: Mapped[datetime]
