"""The results of a study: one row for each arm and measured round, with intervals of two kinds.

`draws` is a paired bootstrap over the draws (or probes) of all seeds. It assumes that other seeds would train alike.
`seeds` is Student's t over the means of the seeds, so it includes the effect of training with another seed; it is None
for one seed.

Invariants:
- Equal cells give equal results, to the last digit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from illume_loop.ablate.grid import FinishedCell
from illume_loop.ablate.measuring import Measured
from illume_loop.ablate.study import Study
from illume_loop.evals.statistics import SeedsEstimate, paired_bootstrap, student_interval

Outcomes = Callable[[Measured], Sequence[bool]]


@dataclass(frozen=True, slots=True)
class Row:
    """The results of one arm after one round. Shares are in [0, 1]; gains are differences to the run's base."""

    arm: str
    after: int
    seeds: tuple[int, ...]
    heldout: dict[str, SeedsEstimate]
    """The share of accepted draws, by guidance."""
    gain: dict[str, SeedsEstimate] | None
    """The gain by guidance; None if the base itself is measured."""
    against: dict[str, SeedsEstimate] | None
    """The difference to the baseline arm, by guidance, over the seeds that both have; None without such seeds."""
    understanding: SeedsEstimate
    understanding_gain: SeedsEstimate | None
    understanding_against: SeedsEstimate | None
    diversity: SeedsEstimate
    """The diversity as a share of the base's; the plain diversity if the base itself is measured."""
    judge_auc: SeedsEstimate | None
    """The mean over the rounds since the arm's previous row."""
    promoted: int
    decided: int
    """The number of those rounds that the gate promoted, and the number that it decided."""


@dataclass(frozen=True, slots=True)
class Results:
    """A study's finished cells and the rows of its table."""

    study: Study
    cells: list[FinishedCell]
    rows: list[Row]

    @property
    def failed(self) -> list[FinishedCell]:
        """The cells whose run failed."""
        return [cell for cell in self.cells if cell.failed is not None]

    def as_json(self) -> dict[str, Any]:
        """Return the study, its rows and its cells as plain values, without single outcomes and times."""
        return {
            "study": self.study.model_dump(mode="json"),
            "rows": [asdict(row) for row in self.rows],
            "cells": [
                {
                    "arm": cell.arm,
                    "seed": cell.seed,
                    "failed": cell.failed,
                    "versions": cell.versions,
                    "rounds": cell.rounds,
                }
                for cell in self.cells
            ],
        }


def results_of(study: Study, cells: Sequence[FinishedCell]) -> Results:
    """Return the results of the given cells, which need not be all cells of the study."""
    ordered = sorted(cells, key=lambda cell: ([arm.name for arm in study.arms].index(cell.arm), cell.seed))
    whole = {(cell.arm, cell.seed): cell for cell in ordered if cell.failed is None}
    rows = []
    for arm in study.arms:
        of_arm = [cell for cell in whole.values() if cell.arm == arm.name]
        previous = 0
        for after in study.after:
            if of_arm:
                baseline = [whole.get((study.baseline, cell.seed)) for cell in of_arm]
                rows.append(_row(arm.name, after, previous, of_arm, baseline if arm.name != study.baseline else []))
            previous = after
    return Results(study, list(ordered), rows)


def stored_results(content: Mapping[str, Any]) -> Results:
    """Return the study and the rows of `Results.as_json`, without its cells. Raises KeyError, TypeError, ValueError."""
    return Results(Study.model_validate(content["study"]), [], [_stored_row(row) for row in content["rows"]])


def _stored_row(row: Mapping[str, Any]) -> Row:
    def estimate(value: Any) -> Any:
        if value is None or "mean" not in value:
            return value and {guidance: estimate(of) for guidance, of in value.items()}
        draws, seeds = (tuple(value[kind]) if value[kind] else None for kind in ("draws", "seeds"))
        return SeedsEstimate(value["mean"], draws, seeds, tuple(value["by_seed"]))

    plain = ("arm", "after", "promoted", "decided")
    values = {name: value if name in plain else estimate(value) for name, value in row.items() if name != "seeds"}
    return Row(seeds=tuple(row["seeds"]), **values)


def _row(
    arm: str, after: int, previous: int, cells: Sequence[FinishedCell], baseline: Sequence[FinishedCell | None]
) -> Row:
    measured = [cell.models[after] for cell in cells]
    bases = [cell.base for cell in cells if cell.base is not None]
    guidances = list(measured[0].heldout)
    of_base = after == 0
    met = [(other.models[after], cell.models[after]) for cell, other in zip(cells, baseline, strict=False) if other]
    rounds = [cell.rounds[previous:after] for cell in cells]
    aucs = [[row["judge_auc"] for row in of_cell if row["judge_auc"] is not None] for of_cell in rounds]
    decisions = [row["decision"] for of_cell in rounds for row in of_cell if row["decision"]]
    pairs = list(zip(bases, measured, strict=True))
    diversities = [model.diversity / (1 if of_base else base.diversity) for base, model in pairs]
    return Row(
        arm=arm,
        after=after,
        seeds=tuple(cell.seed for cell in cells),
        heldout={g: _estimate([_share(model.heldout[g]) for model in measured]) for g in guidances},
        gain=None if of_base else {g: _difference(pairs, _at(g)) for g in guidances},
        against={g: _difference(met, _at(g)) for g in guidances} if met else None,
        understanding=_estimate([_share(model.understanding) for model in measured]),
        understanding_gain=None if of_base else _difference(pairs, lambda model: model.understanding),
        understanding_against=_difference(met, lambda model: model.understanding) if met else None,
        diversity=_estimate(diversities),
        judge_auc=_estimate([float(np.mean(values)) for values in aucs]) if all(aucs) else None,
        promoted=decisions.count("promoted"),
        decided=len(decisions),
    )


def _at(guidance: str) -> Outcomes:
    return lambda model: model.heldout[guidance]


def _share(outcomes: Sequence[bool]) -> float:
    return float(np.mean(outcomes))


def _estimate(values: Sequence[float], draws: tuple[float, float] | None = None) -> SeedsEstimate:
    over_seeds = student_interval(values)
    seeds = None if over_seeds is None else (over_seeds.low, over_seeds.high)
    return SeedsEstimate(float(np.mean(values)), draws, seeds, tuple(values))


def _difference(pairs: Sequence[tuple[Measured, Measured]], outcomes: Outcomes) -> SeedsEstimate:
    """Return the mean of after - before, over pairs of models that were measured with the same noise."""
    before = [value for model, _ in pairs for value in outcomes(model)]
    after = [value for _, model in pairs for value in outcomes(model)]
    over_draws = paired_bootstrap(before, after)
    means = [_share(outcomes(model)) - _share(outcomes(base)) for base, model in pairs]
    return _estimate(means, (over_draws.low, over_draws.high))
