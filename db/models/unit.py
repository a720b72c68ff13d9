"""Units: the smallest pieces of work, who holds them, and how many there are of each kind and state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, State, one_of

UNIT_KINDS = ("sample", "assess", "train", "evaluate")
UNIT_STATES = ("pending", "leased", "done", "dead")
ROLES = ("generator", "assessor", "trainer")
ROLE_OF_KIND: Mapping[str, str] = {
    "sample": "generator",
    "assess": "assessor",
    "evaluate": "assessor",
    "train": "trainer",
}
"""Which role of worker does which kind of unit."""


def _partial(name: str, condition: str, *columns: str) -> Index:
    return Index(name, *columns, sqlite_where=text(condition), postgresql_where=text(condition))


class Unit(Base):
    """A piece of work of a round. `key` is its natural key within the round.

    Each lease raises `fencing_token`, and a result is taken only with the token of the present lease. A lease without
    an expiry lasts as long as its holder keeps the lock of the run directory. Triggers refuse every change of a unit
    that is done or dead, and every lowering of the token.

    `first_row` <= row < `stop_row` are the rows of the round that a sample or assess unit covers; the units of one kind
    cover each row once. `ready_at` is since when a pending unit may be done: never yet for an assessment whose rows are
    not drawn. `issued_at` is when it was last sent to the workers. All times are the database's.
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
    """Units in a state, written out: with a bound parameter neither database would see that a partial index serves."""
    return Unit.state == literal_column(f"'{state}'")


def is_due() -> ColumnElement[bool]:
    """Units that could be taken now."""
    return and_(in_state("pending"), Unit.ready_at.is_not(None))


class StageCount(Base):
    """How many units of one kind a round has in each state, and how far they are.

    Changed in the transaction that changes a unit, so that a look at a round never counts its units. Whoever changes
    this row holds it until it commits: what is read after that is read by one transaction at a time.
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
