"""A run: one configured loop, and the diary of what happened in it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId


class Run(Base):
    """One configured loop. `key` is the random name by which a run directory knows its row.

    The coordinator `leader` acts for it until `leader_expires_at` (the database's clock); each new one raises
    `leader_token`, with which all that it writes is fenced. `teacher_calls` is how many calls to a teacher were
    spent before revision 0011; since then `TeacherBudget` counts them.
    """

    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    key: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(String(64))
    seed: Mapped[int] = mapped_column(BigId)
    settings: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    leader: Mapped[str | None] = mapped_column(String(128))
    leader_token: Mapped[int] = mapped_column(BigId, default=0, server_default="0")
    leader_expires_at: Mapped[datetime | None]
    teacher_calls: Mapped[int] = mapped_column(BigId, default=0, server_default="0")


class Event(Base):
    """One line of a run's diary; rows are only ever added."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    round_id: Mapped[int | None] = mapped_column(ForeignKey("rounds.id"))
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(32))
    message: Mapped[str] = mapped_column(Text)
