"""Runs: their settings, their events, and the leadership of their coordinator.

The leadership is a coordinator's lease on the run's row, fenced by a token.

Invariants:

- A transaction that begins with `renew_leadership` commits only if no other coordinator has taken the leadership.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, func, inspect, or_, select, update
from sqlalchemy.orm import Session

from illume_db.clock import db_now, db_time_in, seconds_since
from illume_db.errors import FencedOutError
from illume_db.rounds import total_rounds, waiting_retries
from illume_db.tables import (
    Event,
    ModelVersion,
    Round,
    Run,
    Unit,
)
from illume_db.tables.rounds import TERMINAL_STATES
from illume_db.tables.versions import version_name


def find_run(session: Session, key: str) -> Run | None:
    """Return the run with the key that a run directory holds; None if there is none."""
    return session.scalar(select(Run).where(Run.key == key))


def add_run(session: Session, *, key: str, name: str, seed: int, settings: dict[str, Any], at: datetime) -> Run:
    """Add a run."""
    run = Run(key=key, name=name, seed=seed, settings=settings, created_at=at)
    session.add(run)
    session.flush()
    return run


def lock_run(session: Session, run_id: int) -> None:
    """Lock the run's row until the commit, so that decisions about the run are made one at a time.

    The coordinator and people decide from rows that they have read. Without the lock, each could miss the other's
    decision. On SQLite, only one transaction writes at a time anyway.
    """
    session.execute(select(Run.id).where(Run.id == run_id).with_for_update(key_share=True))


def add_event(
    session: Session, run_id: int, kind: str, message: str, *, at: datetime, round_id: int | None = None
) -> None:
    """Add an event of the run."""
    session.add(Event(run_id=run_id, round_id=round_id, at=at, kind=kind, message=message))
    session.flush()


def run_of(session: Session, run_id: int) -> Run:
    """Return a run by its id."""
    return session.get_one(Run, run_id)


def run_row(session: Session, run_id: int) -> dict[str, Any]:
    """Return the run: name, key, seed, settings (resolved), created_at."""
    return _run_row(session.get_one(Run, run_id))


def find_run_row(session: Session, run_id: int) -> dict[str, Any] | None:
    """Return the same as `run_row`; None if there is no run with this id."""
    run = session.get(Run, run_id)
    return None if run is None else _run_row(run)


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "name": run.name,
        "key": run.key,
        "seed": run.seed,
        "settings": run.settings,
        "created_at": run.created_at.isoformat(),
    }


def has_runs(session: Session) -> bool:
    """Return whether the database has the table of runs, whatever its schema's revision."""
    return inspect(session.connection()).has_table(Run.__tablename__)


def settings_of(session: Session, key: str) -> dict[str, Any] | None:
    """Return the stored settings of a run; None if the database does not know its key.

    It reads only columns that every revision of the schema has, so it works before an upgrade.
    """
    return session.scalar(select(Run.settings).where(Run.key == key))


def run_key(session: Session, run_id: int) -> str:
    """Return the run's key: the unique name that its run directory holds."""
    return session.get_one(Run, run_id).key


def leader_of(session: Session, run_id: int) -> str | None:
    """Return the host and process of the coordinator that leads the run now; None if none does."""
    return session.scalar(select(Run.leader).where(Run.id == run_id, Run.leader_expires_at >= db_now()))


def num_unattended(session: Session, within_s: float = 24 * 3600.0) -> int:
    """Return how many unfinished runs for workers have no coordinator, although they need one.

    A run counts only for `within_s` after its last event, because a person may have left it unfinished on purpose. A
    run whose last round failed or was cancelled does not count: it waits for a person, who was told.
    """
    last = select(Event.run_id, func.max(Event.at).label("at")).group_by(Event.run_id).subquery()
    has_leader = Run.leader.is_not(None) & (Run.leader_expires_at >= db_now())
    query = select(Run.id, Run.settings).join(last, last.c.run_id == Run.id)
    found = session.execute(query.where(~has_leader, seconds_since(last.c.at) <= within_s))
    return sum(
        settings["run"]["executor"] == "celery" and _is_unfinished(session, run_id, settings["run"]["rounds"])
        for run_id, settings in found
    )


def _is_unfinished(session: Session, run_id: int, num_rounds: int) -> bool:
    rounds = select(Round.index, Round.state).where(Round.run_id == run_id)
    states: dict[int, str] = dict(session.execute(rounds).all())
    is_open = any(state not in TERMINAL_STATES for state in states.values())
    if not states or is_open or waiting_retries(session, run_id):
        return True
    last = max(states)
    return last < total_rounds(session, run_id, num_rounds) and states[last] not in ("failed", "cancelled")


def events(session: Session, run_id: int, *, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
    """Return events with an id above `after`, oldest first: id, at, round (index or None), kind, message."""
    query = (
        select(Event.id, Event.at, Round.index, Event.kind, Event.message)
        .outerjoin(Round, Round.id == Event.round_id)
        .where(Event.run_id == run_id, Event.id > after)
        .order_by(Event.id)
        .limit(limit)
    )
    return [
        {"id": id_, "at": at.isoformat(), "round": index, "kind": kind, "message": message}
        for id_, at, index, kind, message in session.execute(query)
    ]


def runs_table(session: Session, limit: int = 200) -> list[dict[str, Any]]:
    """Return the latest runs of the database, the newest first.

    Keys: id, name, seed, created_at, num_rounds, num_samples, state (of the latest round, or None), active (version).
    """
    rounds = (
        select(
            Round.run_id,
            func.count().label("num_rounds"),
            func.sum(Round.num_samples).label("num_samples"),
            func.max(Round.index).label("last"),
        )
        .group_by(Round.run_id)
        .subquery()
    )
    query = (
        select(Run, rounds.c.num_rounds, rounds.c.num_samples, Round.state, ModelVersion.number)
        .outerjoin(rounds, rounds.c.run_id == Run.id)
        .outerjoin(Round, (Round.run_id == Run.id) & (Round.index == rounds.c.last))
        .outerjoin(ModelVersion, (ModelVersion.run_id == Run.id) & (ModelVersion.state == "active"))
        .order_by(Run.id.desc())
        .limit(limit)
    )
    return [
        {
            "id": run.id,
            "name": run.name,
            "seed": run.seed,
            "created_at": run.created_at.isoformat(),
            "num_rounds": num_rounds or 0,
            "num_samples": int(num_samples or 0),
            "state": state,
            "active": version_name(number) if number is not None else None,
        }
        for run, num_rounds, num_samples, state, number in session.execute(query)
    ]


def last_event_of_kind(session: Session, run_id: int, kind: str) -> str | None:
    """Return the message of the run's last event of a kind; None if there is none."""
    query = select(Event.message).where(Event.run_id == run_id, Event.kind == kind)
    return session.scalar(query.order_by(Event.id.desc()).limit(1))


def last_events(session: Session, run_id: int, limit: int = 12) -> list[dict[str, Any]]:
    """Return the last events, the latest first; see `events` for the keys."""
    query = (
        select(Event.id, Event.at, Round.index, Event.kind, Event.message)
        .outerjoin(Round, Round.id == Event.round_id)
        .where(Event.run_id == run_id)
        .order_by(Event.id.desc())
        .limit(limit)
    )
    return [
        {"id": id_, "at": at.isoformat(), "round": index, "kind": kind, "message": message}
        for id_, at, index, kind, message in session.execute(query)
    ]


def needs_preflight(session: Session, run_id: int, key: str) -> bool:
    """Return whether the run has no samples yet and no unit with this key is done."""
    over = or_(Round.num_samples > 0, (Unit.key == key) & (Unit.state == "done"))
    query = select(Round.id).outerjoin(Unit, Unit.round_id == Round.id).where(Round.run_id == run_id, over).limit(1)
    return session.execute(query).first() is None


def acquire_leadership(session: Session, run_id: int, owner: str, lease_s: float) -> int | None:
    """Take the leadership of the run for `lease_s` seconds; return the token, or None while another one leads."""
    free = or_(Run.leader.is_(None), Run.leader_expires_at < db_now())
    take = update(Run).where(Run.id == run_id, free)
    taken = take.values(leader=owner, leader_token=Run.leader_token + 1, leader_expires_at=db_time_in(lease_s))
    return session.scalar(taken.returning(Run.leader_token))


def renew_leadership(session: Session, run_id: int, token: int, lease_s: float) -> None:
    """Extend the leadership to `lease_s` seconds from now. Raises FencedOutError if another coordinator took over."""
    kept = update(Run).where(Run.id == run_id, Run.leader_token == token, Run.leader.is_not(None))
    change = session.execute(kept.values(leader_expires_at=db_time_in(lease_s)))
    if cast("CursorResult[Any]", change).rowcount != 1:
        raise FencedOutError(f"of run {run_id}")


def release_leadership(session: Session, run_id: int, token: int) -> None:
    """Give up the leadership, so that another coordinator can take over at once; do nothing if one already has."""
    free = update(Run).where(Run.id == run_id, Run.leader_token == token)
    session.execute(free.values(leader=None, leader_expires_at=None))
