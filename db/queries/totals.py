"""What a run comes to, in a few numbers that cost the same however large it is: for metrics and for a live view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import GateDecision, Round, Run, StageCount


@dataclass(frozen=True, slots=True)
class RunTotals:
    """`units` by (kind, state), `rounds` by state, `decisions` by outcome; the gate's last numbers, empty before."""

    name: str
    units: dict[tuple[str, str], int]
    rounds: dict[str, int]
    decisions: dict[str, int]
    num_samples: int
    num_accepted: int
    last_numbers: dict[str, Any]


def run_totals(session: Session, run_id: int) -> RunTotals:
    """The totals of a run over all of its rounds, from the counts that the store keeps."""
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
