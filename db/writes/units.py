"""The life of a unit: pending -> leased -> done, back to pending after a failed attempt, or dead after the last.

Every change is one UPDATE with the state and the fencing token that it expects, so two workers can never both win.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import CursorResult, Update, insert, select, update
from sqlalchemy.orm import Session

from db.errors import FencedOutError
from db.models import Round, Unit

MAX_ERROR_LENGTH = 2_000


@dataclass(frozen=True, slots=True)
class NewUnit:
    """A unit to plan; `key` is unique within the round."""

    kind: str
    key: str
    payload: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to do a unit; a result is taken only with the unit's present token."""

    unit_id: int
    round_id: int
    kind: str
    key: str
    payload: dict[str, Any]
    attempts: int
    token: int


def add_units(session: Session, round_id: int, units: Sequence[NewUnit]) -> None:
    """Plan units; all begin as pending."""
    rows = [
        {"round_id": round_id, "kind": u.kind, "key": u.key, "payload": u.payload, "state": "pending"} for u in units
    ]
    if rows:
        session.execute(insert(Unit), rows)


def lease_unit(session: Session, unit_id: int, owner: str) -> Lease | None:
    """Take a pending unit for `owner`; None where it is not pending (any more)."""
    take = (
        update(Unit)
        .where(Unit.id == unit_id, Unit.state == "pending")
        .values(state="leased", lease_owner=owner, fencing_token=Unit.fencing_token + 1)
    )
    if not _changes_one(session, take):
        return None
    unit = session.get_one(Unit, unit_id, populate_existing=True)
    return Lease(unit.id, unit.round_id, unit.kind, unit.key, unit.payload, unit.attempts, unit.fencing_token)


def finish_unit(session: Session, lease: Lease, seconds: float) -> None:
    """Mark the unit done. Raises FencedOutError, so that its effect in this same transaction is not committed."""
    done = _held(lease).values(state="done", lease_owner=None, error=None, seconds=seconds)
    if not _changes_one(session, done):
        raise FencedOutError(lease.key)


def fail_attempt(session: Session, lease: Lease, error: str, max_attempts: int) -> str:
    """Count a failed attempt; the unit's new state, `pending` or after the last attempt `dead`."""
    state = "dead" if lease.attempts + 1 >= max_attempts else "pending"
    failed = _held(lease).values(
        state=state, lease_owner=None, attempts=lease.attempts + 1, error=error[:MAX_ERROR_LENGTH]
    )
    if not _changes_one(session, failed):
        raise FencedOutError(lease.key)
    return state


def take_back_leases(session: Session, run_id: int) -> int:
    """Make pending again what a dead holder of the run directory's lock left leased; how many units that were.

    The token rises, so nothing that the dead one may still send is taken. No attempt is counted: a process that was
    killed says nothing about its unit.
    """
    of_run = select(Round.id).where(Round.run_id == run_id)
    back = (
        update(Unit)
        .where(Unit.round_id.in_(of_run), Unit.state == "leased", Unit.lease_expires_at.is_(None))
        .values(state="pending", lease_owner=None, fencing_token=Unit.fencing_token + 1)
    )
    return cast("CursorResult[Any]", session.execute(back)).rowcount


def _held(lease: Lease) -> Update:
    return update(Unit).where(Unit.id == lease.unit_id, Unit.state == "leased", Unit.fencing_token == lease.token)


def _changes_one(session: Session, change: Update) -> bool:
    return cast("CursorResult[Any]", session.execute(change)).rowcount == 1
