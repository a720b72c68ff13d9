"""Which coordinator acts for a run: a lease on the run's row, fenced by a token.

Guarantee: what a coordinator writes after `renew` in the same transaction is committed only while no other has taken
over, because the row stays locked until the commit. It is a lease and no lock of a session, which a stopped process
would hold for ever.
"""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import CursorResult, or_, update
from sqlalchemy.orm import Session

from db.clock import db_later, db_now
from db.errors import FencedOutError
from db.models import Run


def acquire(session: Session, run_id: int, owner: str, lease_s: float) -> int | None:
    """Become the run's coordinator for `lease_s` seconds; the token, or None while another one is."""
    free = or_(Run.leader.is_(None), Run.leader_expires_at < db_now())
    take = update(Run).where(Run.id == run_id, free)
    taken = take.values(leader=owner, leader_token=Run.leader_token + 1, leader_expires_at=db_later(lease_s))
    return session.scalar(taken.returning(Run.leader_token))


def renew(session: Session, run_id: int, token: int, lease_s: float) -> None:
    """Stay the run's coordinator for `lease_s` seconds from now. Raises FencedOutError where another one took over."""
    kept = update(Run).where(Run.id == run_id, Run.leader_token == token, Run.leader.is_not(None))
    change = session.execute(kept.values(leader_expires_at=db_later(lease_s)))
    if cast("CursorResult[Any]", change).rowcount != 1:
        raise FencedOutError(f"of run {run_id}")


def release(session: Session, run_id: int, token: int) -> None:
    """Let the next one take over at once; nothing where it already has."""
    free = update(Run).where(Run.id == run_id, Run.leader_token == token)
    session.execute(free.values(leader=None, leader_expires_at=None))
