"""Cheap reads for pages and metrics that follow a run: marks that change with new data, and totals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from illume_db.tables import Event, GateDecision, Review, Round, Run, StageCount, Worker
from illume_db.tables.rounds import TERMINAL_STATES


def run_mark(session: Session, run_id: int) -> str:
    """Return a text that changes with a run's events, with the progress of its open rounds, and with reviews."""
    event = session.scalar(select(Event.id).where(Event.run_id == run_id).order_by(Event.id.desc()).limit(1))
    rounds = select(Round.id).where(Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES))
    work = select(
        func.sum(StageCount.items_done), func.sum(StageCount.num_leased), func.sum(StageCount.num_done)
    ).where(StageCount.round_id.in_(rounds))
    review = session.scalar(select(func.max(Review.id)))
    return "-".join(str(value or 0) for value in (event, *session.execute(work).one(), review))


def store_mark(session: Session) -> str:
    """Return a text that changes with the events of all runs of the database, and with its workers."""
    event = session.scalar(select(func.max(Event.id)))
    workers = select(func.count(), func.sum(Worker.items_done), func.max(Worker.heartbeat_at))
    return "-".join(str(value or 0) for value in (event, *session.execute(workers).one()))


@dataclass(frozen=True, slots=True)
class RunTotals:
    """The totals of a run: `units` by (kind, state), `rounds` by state, `decisions` by outcome.

    `last_numbers` are the numbers of the gate's last decision; they are empty before the first one.
    """

    name: str
    units: dict[tuple[str, str], int]
    rounds: dict[str, int]
    decisions: dict[str, int]
    num_samples: int
    num_accepted: int
    last_numbers: dict[str, Any]


def run_totals(session: Session, run_id: int) -> RunTotals:
    """Return the totals of a run over all of its rounds, read from stored counts."""
    states = ("pending", "leased", "done", "dead")
    summed = [func.sum(getattr(StageCount, f"num_{state}")) for state in states]
    units = session.execute(
        select(StageCount.kind, *summed)
        .join(Round, Round.id == StageCount.round_id)
        .where(Round.run_id == run_id)
        .group_by(StageCount.kind)
    )
    of_run = Round.run_id == run_id
    rounds = session.execute(select(Round.state, func.count()).where(of_run).group_by(Round.state))
    decided = select(GateDecision.decision, func.count()).join(Round, Round.id == GateDecision.round_id)
    decisions = session.execute(decided.where(of_run).group_by(GateDecision.decision))
    sums = session.execute(select(func.sum(Round.num_samples), func.sum(Round.num_accepted)).where(of_run)).one()
    last = select(GateDecision.numbers).join(Round, Round.id == GateDecision.round_id).where(of_run)
    return RunTotals(
        name=session.get_one(Run, run_id).name,
        units={(kind, state): int(n) for kind, *counts in units for state, n in zip(states, counts, strict=True)},
        rounds=dict(rounds.all()),
        decisions=dict(decisions.all()),
        num_samples=int(sums[0] or 0),
        num_accepted=int(sums[1] or 0),
        last_numbers=session.scalar(last.order_by(Round.index.desc()).limit(1)) or {},
    )
