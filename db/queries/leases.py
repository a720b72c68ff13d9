"""Single units for those who wait for them: where a unit belongs, who holds it, which were given up and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.clock import seconds_since
from db.models import ModelVersion, Round, Unit
from db.models.version import version_name

MOST_LINES = 20
"""Units listed of each sort; the counts tell how many there are."""


@dataclass(frozen=True, slots=True)
class UnitAddress:
    """The run that a unit belongs to, and its kind."""

    run_id: int
    kind: str


def find_unit(session: Session, unit_id: int) -> UnitAddress | None:
    """Where a unit belongs; None where there is none of this id."""
    row = session.execute(
        select(Round.run_id, Unit.kind).join(Unit, Unit.round_id == Round.id).where(Unit.id == unit_id)
    ).one_or_none()
    return None if row is None else UnitAddress(*row)


def version_name_of(session: Session, run_id: int, sha256: str) -> str | None:
    """The name of the first version of a run that is this checkpoint."""
    number = session.scalar(
        select(ModelVersion.number)
        .where(ModelVersion.run_id == run_id, ModelVersion.sha256 == sha256)
        .order_by(ModelVersion.number)
        .limit(1)
    )
    return None if number is None else version_name(number)


def held_units(session: Session, round_id: int) -> list[dict[str, Any]]:
    """One object per leased unit of a round, the one with the oldest progress first: unit, kind, worker, items_done,
    items_total, progress_age_s, attempts."""
    age = seconds_since(Unit.progress_at)
    query = (
        select(Unit.key, Unit.kind, Unit.lease_owner, Unit.items_done, Unit.items_total, age, Unit.attempts)
        .where(Unit.round_id == round_id, Unit.state == "leased")
        .order_by(Unit.progress_at, Unit.id)
        .limit(MOST_LINES)
    )
    names = ("unit", "kind", "worker", "items_done", "items_total", "progress_age_s", "attempts")
    rows = [dict(zip(names, row, strict=True)) for row in session.execute(query)]
    return [row | {"progress_age_s": _rounded(row["progress_age_s"])} for row in rows]


def dead_units(session: Session, round_id: int) -> list[dict[str, Any]]:
    """One object per unit of a round that was given up, in planned order: unit, kind, attempts, error."""
    query = (
        select(Unit.key, Unit.kind, Unit.attempts, Unit.error)
        .where(Unit.round_id == round_id, Unit.state == "dead")
        .order_by(Unit.id)
        .limit(MOST_LINES)
    )
    names = ("unit", "kind", "attempts", "error")
    return [dict(zip(names, row, strict=True)) for row in session.execute(query)]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
