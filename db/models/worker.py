"""Workers: who serves which roles, and how it goes with them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, String
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, State, one_of

WORKER_STATES = ("running", "draining", "stopped", "unhealthy")


class Worker(Base):
    """A process that does units. Its row outlives it, so that one can see how it ended; times are the database's.

    `unit_key` is the unit that it holds, `model_version` the name of the version that it has loaded last.
    """

    __tablename__ = "workers"
    __table_args__ = (CheckConstraint(one_of("state", WORKER_STATES), name="state_known"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    roles: Mapped[list[Any]]
    device: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(State)
    drain_requested: Mapped[bool]
    model_version: Mapped[str | None] = mapped_column(String(32))
    unit_key: Mapped[str | None] = mapped_column(String(128))
    items_done: Mapped[int] = mapped_column(BigId)
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    progress_at: Mapped[datetime]
