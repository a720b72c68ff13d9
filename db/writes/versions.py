"""Adding model versions and moving them from state to state.

Which moves are allowed is said by `illume_loop.loop.states`; triggers refuse all others.
"""

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


def move_version(session: Session, version_id: int, current: str, target: str) -> bool:
    """Move a version if it is still in `current`; False where someone else has moved it."""
    change = update(ModelVersion).where(ModelVersion.id == version_id, ModelVersion.state == current)
    return cast("CursorResult[Any]", session.execute(change.values(state=target))).rowcount == 1


def promote_version(session: Session, run_id: int, version_id: int) -> None:
    """Retire the active version, where there is one, and make `version_id` active; the two never are at once."""
    active = update(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.state == "active")
    session.execute(active.values(state="retired"))
    chosen = update(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.id == version_id)
    session.execute(chosen.values(state="active"))
