"""Single units for those who wait for them: where a unit belongs, who holds it, since when nothing went on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.clock import db_later, seconds_since
from db.models import ModelVersion, Round, StageCount, Unit, Worker
from db.models.unit import in_state, is_due
from db.models.version import version_name
from db.models.worker import shown_state

SETTLE_S = 2.0
"""A message that is younger may be on its way."""
MOST_LINES = 20
"""Units listed; the counts tell how many there are."""


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


def is_held(session: Session, unit_id: int, token: int) -> bool:
    """Return whether a unit is leased under this token."""
    query = select(Unit.id).where(Unit.id == unit_id, in_state("leased"), Unit.fencing_token == token)
    return session.scalar(query) is not None


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
        .where(Unit.round_id == round_id, in_state("leased"))
        .order_by(Unit.progress_at, Unit.id)
        .limit(MOST_LINES)
    )
    names = ("unit", "kind", "worker", "items_done", "items_total", "progress_age_s", "attempts")
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in session.execute(query)]
    return [row | {"progress_age_s": _rounded(row["progress_age_s"])} for row in rows]


def items_held(session: Session, round_id: int, kind: str) -> tuple[int, int]:
    """(done, in all) of the items of the units of a kind that are leased."""
    query = select(func.sum(Unit.items_done), func.sum(Unit.items_total)).where(
        Unit.round_id == round_id, Unit.kind == kind, in_state("leased")
    )
    done, total = session.execute(query).one()
    return int(done or 0), int(total or 0)


def progress_age(session: Session, round_id: int) -> float:
    """Seconds since anything went on with the units of a round: planned, finished, leased or brought forward.

    What ended the stage before counts, as the units of a stage may have been planned long before it begins. What was
    brought forward and lost with its worker counts too, so whoever takes it next has as long as any other.
    """
    counts = select(func.max(StageCount.progress_at)).where(StageCount.round_id == round_id)
    units = select(func.max(Unit.progress_at)).where(Unit.round_id == round_id)
    latest = counts, units.where(in_state("leased")), units.where(is_due(), Unit.items_done > 0)
    # One statement sees one moment: between two of them a unit may go from held to finished, and be seen in neither.
    ages = session.execute(select(*(seconds_since(one.scalar_subquery()) for one in latest))).one()
    return min((age for age in ages if age is not None), default=0.0)


def is_left_waiting(session: Session, kinds: Collection[str], waited_s: float, sent_within_s: float) -> bool:
    """Whether a unit of these kinds has waited for so long although it was sent again lately: nobody listens."""
    lately = Unit.issued_at.between(db_later(-sent_within_s), db_later(-SETTLE_S))
    query = select(Unit.id).where(
        in_state("pending"), Unit.kind.in_(kinds), Unit.ready_at < db_later(-waited_s), lately
    )
    return session.scalar(query.limit(1)) is not None


def last_worker(session: Session, role: str) -> dict[str, Any] | None:
    """The worker of a role that was heard of last: name, state, heartbeat_age_s."""
    query = select(Worker.name, shown_state(), Worker.roles, seconds_since(Worker.heartbeat_at)).order_by(
        Worker.heartbeat_at.desc()
    )
    for name, state, roles, age in session.execute(query):
        if role in roles:
            return {"name": name, "state": state, "heartbeat_age_s": age}
    return None


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
