"""Runs and their diaries, for the command line and the dashboard."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, inspect, select
from sqlalchemy.orm import Session

from db.clock import db_now, seconds_since
from db.models import Event, ModelVersion, Round, Run
from db.models.round import TERMINAL_STATES
from db.models.version import version_name
from db.queries.progress import rounds_in_all, waiting_retries


def run_row(session: Session, run_id: int) -> dict[str, Any]:
    """Return the run: name, key, seed, settings (resolved), created_at."""
    return _run_row(session.get_one(Run, run_id))


def find_run_row(session: Session, run_id: int) -> dict[str, Any] | None:
    """Return the same of a run that somebody asks for; None where there is none."""
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
    """Return whether the database has the table of runs, at whatever schema."""
    return inspect(session.connection()).has_table(Run.__tablename__)


def settings_of(session: Session, key: str) -> dict[str, Any] | None:
    """Return the settings in the row of a run; None for a key that the database does not know.

    It reads columns that every schema has, so that an older one can be asked before it is upgraded.
    """
    return session.scalar(select(Run.settings).where(Run.key == key))


def run_key(session: Session, run_id: int) -> str:
    """What names the run in its run directory, and nothing else anywhere."""
    return session.get_one(Run, run_id).key


def leader_of(session: Session, run_id: int) -> str | None:
    """The coordinator that leads the run now (its host and process), or None where none does."""
    return session.scalar(select(Run.leader).where(Run.id == run_id, Run.leader_expires_at >= db_now()))


def num_unattended(session: Session, within_s: float = 24 * 3600.0) -> int:
    """Return how many runs for workers are not finished, have no coordinator, and had a line in their diary lately.

    A run that somebody left unfinished is counted for `within_s`, and not for ever. One whose last round failed or was
    cancelled waits for a person, who was told of that.
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
    return last < rounds_in_all(session, run_id, num_rounds) and states[last] not in ("failed", "cancelled")


def events(session: Session, run_id: int, *, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
    """Lines of the diary with an id above `after`, oldest first: id, at, round (index or None), kind, message."""
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
    """The latest runs of the database: id, name, seed, created_at, num_rounds, state (of the latest round, or None),
    active (version), num_samples."""
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
    """Return the message of the last line of a kind in the diary; None where there is none."""
    query = select(Event.message).where(Event.run_id == run_id, Event.kind == kind)
    return session.scalar(query.order_by(Event.id.desc()).limit(1))


def last_events(session: Session, run_id: int, limit: int = 12) -> list[dict[str, Any]]:
    """The last lines of the diary, the latest first; see `events` for the keys."""
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
