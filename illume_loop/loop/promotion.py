"""What a person decides about model versions: another one becomes active, or the one before it does again.

Guarantee: one version is active at any time. Rounds that are under way keep the version that they draw with and the
parent that their candidate has to beat once that is fixed; the next ones begin with the new one. Each decision is a
line of the run's diary, with the name of whoever took it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import ModelVersion
from db.queries.progress import active_version
from db.writes.runs import add_event
from db.writes.versions import activate_version
from illume_loop.errors import NotFoundError, PromotionError


def promote(session: Session, run_id: int, name: str, *, by: str) -> str:
    """Make a version active; the name of the one that was. A person may overrule the gate.

    Raises NotFoundError, and PromotionError where it is active already.
    """
    target = _version(session, run_id, name)
    return _activate(session, run_id, target, f"{by} promoted {target.name}")


def rollback(session: Session, run_id: int, *, by: str, expected: str | None = None) -> tuple[str, str]:
    """Make the parent of the active version active again; (the one that was active, the one that is).

    Raises PromotionError where the active version is the base, or is not `expected`.
    """
    active = _active(session, run_id)
    if expected is not None and active.name != expected:
        raise PromotionError(name=f"the parent of {expected}", reason=f"{active.name} is active by now")
    if active.parent_id is None:
        raise PromotionError(name="an older version", reason=f"{active.name} is the base of the run")
    target = session.get_one(ModelVersion, active.parent_id)
    was = _activate(session, run_id, target, f"{by} rolled back from {active.name} to {target.name}")
    return was, target.name


def _activate(session: Session, run_id: int, target: ModelVersion, message: str) -> str:
    active = _active(session, run_id)
    if target.id == active.id:
        raise PromotionError(name=target.name, reason="it is active already")
    if not activate_version(session, run_id, active.id, target.id):
        raise PromotionError(name=target.name, reason="another version became active meanwhile; look again")
    add_event(session, run_id, "promoted", message, at=datetime.now(UTC))
    return active.name


def _active(session: Session, run_id: int) -> ModelVersion:
    active = active_version(session, run_id)
    assert active is not None, "the base was imported with the run, and one version is always active"
    return active


def _version(session: Session, run_id: int, name: str) -> ModelVersion:
    for version in session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id)):
        if version.name == name:
            return version
    raise NotFoundError(kind="model version", name=name)
