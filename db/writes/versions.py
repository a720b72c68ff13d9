"""Adding model versions and changing which one is active."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from db.models import ModelVersion


def add_version(
    session: Session,
    run_id: int,
    *,
    parent_id: int | None,
    state: str,
    sha256: str,
    num_bytes: int,
    origin: str,
    at: datetime,
) -> ModelVersion:
    """Add a version under the run's next number. Its checkpoint must already lie in the artifact store."""
    last = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.run_id == run_id))
    version = ModelVersion(
        run_id=run_id,
        number=(last or 0) + 1,
        parent_id=parent_id,
        state=state,
        sha256=sha256,
        num_bytes=num_bytes,
        origin=origin,
        created_at=at,
    )
    session.add(version)
    session.flush()
    return version


def promote_version(session: Session, run_id: int, version_id: int) -> None:
    """Retire the active version and make `version_id` active; the two never are at once."""
    active = update(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.state == "active")
    session.execute(active.values(state="retired"))
    session.execute(update(ModelVersion).where(ModelVersion.id == version_id).values(state="active"))


def activate_version(session: Session, run_id: int, active_id: int, version_id: int) -> bool:
    """Retire `active_id` and make `version_id` active; False, and nothing is changed, where another one is active."""
    of_active = update(ModelVersion).where(ModelVersion.id == active_id, ModelVersion.state == "active")
    if cast("CursorResult[Any]", session.execute(of_active.values(state="retired"))).rowcount != 1:
        return False
    chosen = update(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.id == version_id)
    session.execute(chosen.values(state="active"))
    return True


def reject_version(session: Session, version_id: int) -> None:
    """Mark a candidate as rejected; its files are kept."""
    session.execute(update(ModelVersion).where(ModelVersion.id == version_id).values(state="rejected"))
