"""Workers: who serves which roles, and how it goes with them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ColumnElement, Double, String, case
from sqlalchemy.orm import Mapped, mapped_column

from db.clock import seconds_since
from db.types import Base, BigId, State, one_of

WORKER_STATES = ("running", "draining", "stopped", "unhealthy")


GONE = ("stopped", "unhealthy")
"""States in which a worker has ended, and has said so."""
LOST = "lost"
"""The state shown for a worker that ended, or was cut off, without a word."""
LOST_BEATS, LOST_SLACK_S = 3, 5.0
"""One heartbeat may be late, and a database that was restarted makes two."""


class Worker(Base):
    """A process that does units. Its row outlives it, so that one can see how it ended; times are the database's.

    `unit_key` is the unit that it holds, `model_version` the name of the version that it has loaded last. `heartbeat_s`
    is how often it shows life: one that is silent for longer than `LOST_BEATS` of these and `LOST_SLACK_S` is lost,
    whatever its state says, because whoever crashes says nothing.
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
    heartbeat_s: Mapped[float] = mapped_column(Double, server_default="5")
    started_at: Mapped[datetime]
    heartbeat_at: Mapped[datetime]
    progress_at: Mapped[datetime]


def is_lost() -> ColumnElement[bool]:
    """Return whether a worker was silent for too long without having said that it ends."""
    silent = seconds_since(Worker.heartbeat_at) > LOST_BEATS * Worker.heartbeat_s + LOST_SLACK_S
    return Worker.state.not_in(GONE) & silent


def is_gone() -> ColumnElement[bool]:
    """Return whether a worker has ended, said so or not."""
    return Worker.state.in_(GONE) | is_lost()


def shown_state() -> ColumnElement[str]:
    """A worker's state, `lost` for one that is."""
    return case((is_lost(), LOST), else_=Worker.state)
