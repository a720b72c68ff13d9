"""What the database holds, compared with what a run needs: the one step that comes next. Pure.

Guarantee: the step depends on what is given only, so a coordinator may be killed before, in or after any step and the
next one continues. A step that was carried out is never asked for again, because its effect is in what is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from db.queries.progress import UnitRow
from illume_loop.loop.states import RoundState


@dataclass(frozen=True, slots=True)
class RoundView:
    """The latest round of a run with its units in planned order."""

    index: int
    state: RoundState
    units: Sequence[UnitRow]


@dataclass(frozen=True, slots=True)
class PlanRound:
    """Begin round `index`."""

    index: int


@dataclass(frozen=True, slots=True)
class Move:
    """Move the round to `target`; nothing else is due."""

    target: RoundState


@dataclass(frozen=True, slots=True)
class Issue:
    """Have these units done, the most urgent first."""

    units: Sequence[UnitRow]


@dataclass(frozen=True, slots=True)
class Curate:
    """Write the manifest and plan the training."""


@dataclass(frozen=True, slots=True)
class PlanGate:
    """Plan the measurements that the gate lacks."""


@dataclass(frozen=True, slots=True)
class Decide:
    """Let the gate decide."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """A unit is dead, so the round fails."""

    unit: UnitRow


Step = PlanRound | Move | Issue | Curate | PlanGate | Decide | GiveUp


def reconcile(latest: RoundView | None, num_rounds: int) -> Step | None:
    """The next step; None when the run has all its rounds."""
    if latest is None:
        return PlanRound(1)
    if latest.state.is_terminal:
        return PlanRound(latest.index + 1) if latest.index < num_rounds else None
    dead = [unit for unit in latest.units if unit.state == "dead"]
    if dead:
        return GiveUp(dead[0])
    return _step_within(latest)


def _step_within(view: RoundView) -> Step:
    match view.state:
        case RoundState.PLANNED:
            return Move(RoundState.SAMPLING)
        case RoundState.SAMPLING:
            return Move(RoundState.ASSESSING) if _all_done(view, "sample") else Issue(_ready(view))
        case RoundState.ASSESSING:
            return Move(RoundState.CURATING) if _all_done(view, "assess") else Issue(_ready(view))
        case RoundState.CURATING:
            return Curate()
        case RoundState.TRAINING:
            return PlanGate() if _all_done(view, "train") else Issue(_pending(view, "train"))
        case _:
            return Decide() if _all_done(view, "evaluate") else Issue(_pending(view, "evaluate"))


def _ready(view: RoundView) -> list[UnitRow]:
    """Assessments whose rows are all drawn come first, so that images are judged while they are still at hand."""
    missing = [unit.payload for unit in view.units if unit.kind == "sample" and unit.state != "done"]
    drawn = [unit for unit in _pending(view, "assess") if not _overlaps(unit.payload, missing)]
    return drawn + _pending(view, "sample")


def _overlaps(rows: dict[str, int], others: Sequence[dict[str, int]]) -> bool:
    return any(rows["first"] < other["stop"] and other["first"] < rows["stop"] for other in others)


def _pending(view: RoundView, kind: str) -> list[UnitRow]:
    return [unit for unit in view.units if unit.kind == kind and unit.state == "pending"]


def _all_done(view: RoundView, kind: str) -> bool:
    return all(unit.state == "done" for unit in view.units if unit.kind == kind)
