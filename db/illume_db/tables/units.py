"""Tables of units, their counts by stage, and the workers that do them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    Double,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    and_,
    case,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.clock import seconds_since
from illume_db.types import Base, BigId, State, one_of

UNIT_KINDS = ("sample", "assess", "train", "evaluate")

UNIT_STATES = ("pending", "leased", "done", "dead")

ROLES = ("generator", "assessor", "trainer")

ROLE_OF_KIND: Mapping[str, str] = {
    "sample": "generator",
    "assess": "assessor",
    "evaluate": "assessor",
    "train": "trainer",
}
"""The role of the workers that do each kind of unit."""


def _partial(name: str, condition: str, *columns: str) -> Index:
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


class Unit(Base):
    """A piece of work of a round. `key` is its natural key within the round.

    A sample or assess unit covers the rows `first_row` <= row < `stop_row` of the round; the units of one kind cover
    each row once. `ready_at` is the time since which a pending unit may be done; it is NULL for an assessment whose
    rows are not drawn. `issued_at` is the time at which the unit was last sent to the workers. A lease without an
    expiry lasts as long as its holder keeps the lock of the run directory. All times are the database's.

    Invariants:

    - Each lease raises `fencing_token`, and a result is accepted only with the token of the present lease.
    - Triggers refuse every change of a unit that is done or dead, and every decrease of the token.
    """

    __tablename__ = "units"
    __table_args__ = (
        UniqueConstraint("round_id", "key"),
        CheckConstraint(one_of("kind", UNIT_KINDS), name="kind_known"),
        CheckConstraint(one_of("state", UNIT_STATES), name="state_known"),
        CheckConstraint("(state = 'leased') = (lease_owner IS NOT NULL)", name="leased_has_owner"),
        CheckConstraint("state <> 'dead' OR error IS NOT NULL", name="dead_says_why"),
        Index("ix_units_rows", "round_id", "kind", "first_row"),
        _partial("ix_units_due", "state = 'pending' AND ready_at IS NOT NULL", "round_id", "kind", "id"),
        _partial("ix_units_issued", "state = 'pending' AND issued_at IS NOT NULL", "round_id", "kind"),
        _partial("ix_units_leased", "state = 'leased'", "round_id", "kind"),
        _partial("ix_units_dead", "state = 'dead'", "round_id", "kind"),
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    kind: Mapped[str] = mapped_column(State)
    key: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(State, default="pending")
    attempts: Mapped[int] = mapped_column(default=0)
    fencing_token: Mapped[int] = mapped_column(BigId, default=0)
    lease_owner: Mapped[str | None] = mapped_column(String(128))
    lease_expires_at: Mapped[datetime | None]
    error: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float | None]
    first_row: Mapped[int | None]
    stop_row: Mapped[int | None]
    ready_at: Mapped[datetime | None]
    issued_at: Mapped[datetime | None]
    items_done: Mapped[int] = mapped_column(default=0, server_default="0")
    items_total: Mapped[int] = mapped_column(default=0, server_default="0")
    progress_at: Mapped[datetime | None]


def in_state(state: str) -> ColumnElement[bool]:
    """Return the condition that a unit is in a state, written as a literal.

    With a bound parameter, neither database would use the partial indexes.
    """
    return Unit.state == literal_column(f"'{state}'")


def is_due() -> ColumnElement[bool]:
    """Return the condition that a unit can be leased now."""
    return and_(in_state("pending"), Unit.ready_at.is_not(None))


class StageCount(Base):
    """The number of a round's units of one kind in each state, with their items and seconds.

    A row changes in the transaction that changes a unit, so that a read of a round counts no units. The change locks
    the row until the commit, and other transactions that change it wait. What a transaction reads after its change is
    therefore read by one transaction at a time.
    """

    __tablename__ = "stage_counts"
    __table_args__ = (
        CheckConstraint(one_of("kind", UNIT_KINDS), name="kind_known"),
        CheckConstraint("num_units = num_pending + num_leased + num_done + num_dead", name="states_sum_up"),
        CheckConstraint(
            "num_pending >= 0 AND num_leased >= 0 AND num_done >= 0 AND num_dead >= 0", name="none_below_zero"
        ),
    )

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(State, primary_key=True)
    num_units: Mapped[int]
    num_pending: Mapped[int]
    num_leased: Mapped[int] = mapped_column(default=0)
    num_done: Mapped[int] = mapped_column(default=0)
    num_dead: Mapped[int] = mapped_column(default=0)
    items_total: Mapped[int] = mapped_column(BigId)
    items_done: Mapped[int] = mapped_column(BigId, default=0)
    seconds: Mapped[float] = mapped_column(default=0.0)
    progress_at: Mapped[datetime | None]


WORKER_STATES = ("running", "draining", "stopped", "unhealthy")

ENDED_STATES = ("stopped", "unhealthy")
"""The states of a worker that reported its end."""

LOST = "lost"
"""The state that is shown for a worker whose heartbeats stopped before it reported an end."""

LOST_BEATS, LOST_SLACK_S = 3, 5.0
"""The heartbeats and the seconds that a worker may miss. One heartbeat may be late, and a restart of the database
delays two."""


class Worker(Base):
    """A process that does units. Its row outlives the process and shows how it ended; times are the database's.

    `unit_key` is the unit that the worker holds. `model_version` is the name of the version that it loaded last.
    `heartbeat_s` is the time between two heartbeats. A worker is lost if it is silent for longer than `LOST_BEATS`
    times `heartbeat_s` plus `LOST_SLACK_S`, unless it reported its end: a worker that crashes cannot report it.
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
    """Return the condition that a worker's heartbeats stopped before it reported an end."""
    silent = seconds_since(Worker.heartbeat_at) > LOST_BEATS * Worker.heartbeat_s + LOST_SLACK_S
    return Worker.state.not_in(ENDED_STATES) & silent


def is_gone() -> ColumnElement[bool]:
    """Return the condition that a worker reported its end or is lost."""
    return Worker.state.in_(ENDED_STATES) | is_lost()


def shown_state() -> ColumnElement[str]:
    """Return a worker's state, or `lost` if the worker is lost."""
    return case((is_lost(), LOST), else_=Worker.state)
