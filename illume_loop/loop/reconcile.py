"""The reconciler: it compares the state of a run with what the run needs, and returns the steps that are due. Pure.

Invariants:

- The steps depend on the arguments only. So a coordinator may be killed before, in or after any step, and the next one
  continues.
- A step that was carried out is never due again, because the arguments contain its effect.
- No step is due exactly when the run has all its rounds.

Rounds may overlap by one. Round r + 1 is planned in the step that ends the curation of round r. It draws and assesses
while round r is trained and gated. It is curated only when round r has ended, so the manifests follow from the settings
and the seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from illume_db.units import StageCounts
from illume_loop.loop.states import RoundState

NONE = StageCounts()


@dataclass(frozen=True, slots=True)
class RoundView:
    """A round of a run, with the counts of its units by kind and the number of reviews that it still waits for."""

    index: int
    state: RoundState
    counts: Mapping[str, StageCounts] = field(default_factory=dict)
    missing_reviews: int = 0


@dataclass(frozen=True, slots=True)
class PlanRound:
    """A step: begin round `index`."""

    index: int


@dataclass(frozen=True, slots=True)
class Move:
    """A step: move the round to `target`, which needs no other change."""

    index: int
    target: RoundState


@dataclass(frozen=True, slots=True)
class Issue:
    """A step: get the round's units of these kinds done, the most urgent kind first. Some may be leased already."""

    index: int
    kinds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Curate:
    """A step: write the round's manifest and plan its training; with `plan_next`, also begin the next round."""

    index: int
    plan_next: bool = False


@dataclass(frozen=True, slots=True)
class AwaitReviews:
    """A step: wait until people have reviewed `missing` more samples of the round."""

    index: int
    missing: int


@dataclass(frozen=True, slots=True)
class PlanGate:
    """A step: plan the gate's first look."""

    index: int


@dataclass(frozen=True, slots=True)
class Decide:
    """A step: let the gate decide, or plan its next look."""

    index: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A step: fail the round, because more of its units of a kind are dead than it may lose."""

    index: int
    kind: str


Change = PlanRound | Move | Curate | PlanGate | Decide | GiveUp
Step = Change | Issue | AwaitReviews


def reconcile(rounds: Sequence[RoundView], num_rounds: int, overlap: int = 0, tolerance: float = 0.0) -> list[Step]:
    """Return the next steps, at most one of each round, earlier rounds first.

    `rounds` are the run's open rounds and its latest one, in order. `overlap` is the number of rounds that may begin
    while an earlier one is undecided (0 or 1). `tolerance` is the share of a round's drawing units, and of its
    assessing units, that may die.
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
            # These units are the preflight and the fit of the calibration, as far as the run still needs them.
            # A round whose updates are planned from its beginning draws and judges within them.
            target = RoundState.TRAINING if "train" in view.counts else RoundState.SAMPLING
            return _when_settled(view, ("evaluate",), "evaluate", Move(view.index, target))
        case RoundState.SAMPLING:
            # Assessments come first, so that images are judged while they are still in memory.
            return _when_settled(view, ("assess", "sample"), "sample", Move(view.index, RoundState.ASSESSING))
        case RoundState.ASSESSING:
            curating = Move(view.index, RoundState.CURATING) if is_first else None
            return _when_settled(view, ("assess",), "assess", curating)
        case RoundState.CURATING:
            if view.missing_reviews:
                return AwaitReviews(view.index, view.missing_reviews)
            return Curate(view.index, plan_next)
        case RoundState.TRAINING:
            # The updates of a round may have samples and assessments of their own.
            kinds = tuple(kind for kind in ("assess", "sample") if _is_open(view, kind))
            return _when_settled(view, (*kinds, "train"), "train", PlanGate(view.index))
        case _:
            return _when_settled(view, ("evaluate",), "evaluate", Decide(view.index))


def _when_settled(view: RoundView, kinds: tuple[str, ...], kind: str, step: Change | None) -> Step | None:
    return Issue(view.index, kinds) if _is_open(view, kind) else step


def _is_open(view: RoundView, kind: str) -> bool:
    counts = view.counts.get(kind, NONE)
    return bool(counts.num_pending or counts.num_leased)


def _lost(view: RoundView, kind: str, tolerance: float) -> bool:
    counts = view.counts[kind]
    may_die = tolerance * counts.num_units if kind in ("sample", "assess") else 0.0
    return counts.num_dead > may_die
