"""Whether a run still has to try one prompt through every stage."""

from __future__ import annotations

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from db.models import Round, Unit


def needs_preflight(session: Session, run_id: int, key: str) -> bool:
    """Return whether a run has drawn nothing yet and no unit with this key is done."""
    over = or_(Round.num_samples > 0, (Unit.key == key) & (Unit.state == "done"))
    query = select(Round.id).outerjoin(Unit, Unit.round_id == Round.id).where(Round.run_id == run_id, over).limit(1)
    return session.execute(query).first() is None
