"""Units: the smallest pieces of work, and who holds them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.types import Base, BigId, State, one_of

UNIT_KINDS = ("sample", "assess", "train", "evaluate")
UNIT_STATES = ("pending", "leased", "done", "dead")


class Unit(Base):
    """A piece of work of a round. `key` is its natural key within the round.

    Each lease raises `fencing_token`, and a result is taken only with the token of the present lease. A lease without
    an expiry lasts as long as its holder keeps the lock of the run directory.
    """

    __tablename__ = "units"
    __table_args__ = (
        UniqueConstraint("round_id", "key"),
        CheckConstraint(one_of("kind", UNIT_KINDS), name="kind_known"),
        CheckConstraint(one_of("state", UNIT_STATES), name="state_known"),
        CheckConstraint("(state = 'leased') = (lease_owner IS NOT NULL)", name="leased_has_owner"),
        CheckConstraint("state <> 'dead' OR error IS NOT NULL", name="dead_says_why"),
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
