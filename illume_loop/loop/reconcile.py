"""What the database holds, compared with what a run needs: the steps that are due. Pure.

Guarantee: the steps depend on what is given only, so a coordinator may be killed before, in or after any step and the
next one continues. A step that was carried out is never asked for again, because its effect is in what is given. There
are no steps exactly when the run has all its rounds.

Rounds may overlap by one: round r + 1 is planned in the step that ends the curation of round r, and draws and assesses
while r is trained and gated. It is curated only when r has ended, so the manifests follow from settings and seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from illume_db.units import StageCounts
from illume_loop.loop.states import RoundState

NONE = StageCounts()


@dataclass(frozen=True, slots=True)
class RoundView:
    """A round of a run with the counts of its units by kind, and how many reviews it still waits for."""

    index: int
    state: RoundState
    counts: Mapping[str, StageCounts] = field(default_factory=dict)
    missing_reviews: int = 0


@dataclass(frozen=True, slots=True)
class PlanRound:
    """Begin round `index`."""

    index: int


@dataclass(frozen=True, slots=True)
class Move:
    """Move the round to `target`; nothing else is due."""

    index: int
    target: RoundState


@dataclass(frozen=True, slots=True)
class Issue:
    """Have the round's units of these kinds done, the most urgent kind first; some may be under way already."""

    index: int
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Curate:
    """Write the round's manifest and plan its training; with `plan_next`, begin the next round beside it."""

    index: int
    plan_next: bool = False


@dataclass(frozen=True, slots=True)
class AwaitReviews:
    """Nothing is due until people have reviewed `missing` more samples of the round."""

    index: int
    missing: int


@dataclass(frozen=True, slots=True)
class PlanGate:
    """Plan the first measurements that the gate lacks."""

    index: int


@dataclass(frozen=True, slots=True)
class Decide:
    """Let the gate decide, or plan what its next look needs."""

    index: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """More units of a kind are dead than the round may lose, so it fails."""

    index: int
    kind: str


Change = PlanRound | Move | Curate | PlanGate | Decide | GiveUp
Step = Change | Issue | AwaitReviews


def reconcile(rounds: Sequence[RoundView], num_rounds: int, overlap: int = 0, tolerance: float = 0.0) -> list[Step]:
    """The next steps, at most one of each round, earlier rounds first.

    `rounds` are the run's open rounds and its latest one, in order. `overlap` is how many rounds may begin while an
    earlier one is undecided (0 or 1), `tolerance` the share of a round's drawings, and of its assessments, that may
    die.
    """
    latest = rounds[-1] if rounds else None
    still_open = [view for view in rounds if not view.state.is_terminal]
    last_index = latest.index if latest else 0
    if not still_open:
        return [PlanRound(last_index + 1)] if last_index < num_rounds else []
    steps = []
    for place, view in enumerate(still_open):
        plan_next = bool(overlap) and view is latest and view.index < num_rounds
        step = _step_within(view, place == 0, plan_next, tolerance)
        if step is not None:
            steps.append(step)
    return steps


def _step_within(view: RoundView, is_first: bool, plan_next: bool, tolerance: float) -> Step | None:
    lost = next((kind for kind in view.counts if _lost(view, kind, tolerance)), None)
    if lost is not None:
        return GiveUp(view.index, lost)
    match view.state:
        case RoundState.PLANNED:
            # What is evaluated before anything is drawn is the judge, where the run still lacks its calibration.
            return _when_settled(view, ("evaluate",), "evaluate", Move(view.index, RoundState.SAMPLING))
        case RoundState.SAMPLING:
            # Assessments come first, so that images are judged while they are still at hand.
            return _when_settled(view, ("assess", "sample"), "sample", Move(view.index, RoundState.ASSESSING))
        case RoundState.ASSESSING:
            curating = Move(view.index, RoundState.CURATING) if is_first else None
            return _when_settled(view, ("assess",), "assess", curating)
        case RoundState.CURATING:
            if view.missing_reviews:
                return AwaitReviews(view.index, view.missing_reviews)
            return Curate(view.index, plan_next)
        case RoundState.TRAINING:
            return _when_settled(view, ("train",), "train", PlanGate(view.index))
        case _:
            return _when_settled(view, ("evaluate",), "evaluate", Decide(view.index))


def _when_settled(view: RoundView, kinds: tuple[str, ...], kind: str, step: Change | None) -> Step | None:
    counts = view.counts.get(kind, NONE)
    return Issue(view.index, kinds) if counts.num_pending or counts.num_leased else step


def _lost(view: RoundView, kind: str, tolerance: float) -> bool:
    counts = view.counts[kind]
    may_die = tolerance * counts.num_units if kind in ("sample", "assess") else 0.0
    return counts.num_dead > may_die
