"""The gate's guards: they object to a candidate that lost understanding, editing, diversity or judgement.

Understanding and editing are compared item by item with the base's outcomes on the same items. There may be too few
items to exclude the margin even if no outcome changed. Then the shares are compared, and the numbers say that nothing
was tested. Diversity and the drift as a judge are compared with their bounds.

Invariant: a candidate that has lost the margin passes a tested guard with a probability of at most
(1 - confidence) / 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from illume_loop.evals.noninferiority import PairedLoss, can_exclude_loss, items_for, paired_loss
from illume_loop.evals.statistics import share
from illume_loop.judge.agreement import JudgeDrift
from illume_loop.settings import GateSettings

EDITING_MARGIN = 0.08
"""The loss in the share of right held-out edits that has to be excluded.

It is larger than the default margin of understanding, because the outcome of an edit changes by chance more often than
that of a reading."""


@dataclass(frozen=True, slots=True)
class GuardResult:
    """The result of a guard that compares a candidate's outcomes with those of the base."""

    name: str
    base_share: float
    loss: PairedLoss
    margin: float
    error: float

    @property
    def tested(self) -> bool:
        """True if there are enough items to exclude the margin when no outcome changes."""
        return can_exclude_loss(self.margin, self.loss.n, self.error)

    @property
    def passed(self) -> bool:
        """True if a loss of the margin is excluded.

        With too few items to test, it is True if the share fell by no more than the margin. A margin of 1 allows every
        loss.
        """
        if self.margin >= 1.0:
            return True
        return self.loss.low > -self.margin if self.tested else self.loss.mean >= -self.margin

    def objections(self) -> Iterator[str]:
        """Yield why the candidate cannot be promoted, if it cannot."""
        if self.passed:
            return
        change = f"{100 * self.loss.mean:+.1f} points from the base's {100 * self.base_share:.1f}"
        if not self.tested:
            yield f"{self.name} changed by {change}, a loss of more than {100 * self.margin:.1f}"
            return
        told = (
            f"{self.name} may have lost {100 * self.margin:.1f} points or more: it changed by {change} over "
            f"{self.loss.n} items, and the test excludes losses beyond {-100 * self.loss.low:.1f} only"
        )
        needed = items_for(self.margin, (self.loss.lost + self.loss.gained) / self.loss.n, self.error)
        is_within = self.loss.mean > -self.margin / 2
        yield f"{told}; gate.probe_items = {needed} would tell" if is_within and needed > self.loss.n else told

    def numbers(self) -> dict[str, Any]:
        """Return the result as JSON; the change, its lower bound and the margin are shares."""
        return {
            "mean": self.loss.mean,
            "low": self.loss.low,
            "margin": self.margin,
            "n": self.loss.n,
            "lost": self.loss.lost,
            "gained": self.loss.gained,
            "tested": self.tested,
            "passed": self.passed,
        }


def compare_guard(
    name: str, base: Sequence[bool], candidate: Sequence[bool], margin: float, settings: GateSettings
) -> GuardResult:
    """Compare a candidate's outcomes with those of the run's base on the same items."""
    error = (1 - settings.confidence) / 2
    return GuardResult(name, share(base), paired_loss(base, candidate, error), margin, error)


def diversity_objections(base: float, candidate: float, settings: GateSettings) -> Iterator[str]:
    """Yield that a candidate's diversity has fallen too far below that of the base, if it has."""
    if not candidate >= settings.diversity_ratio * base:  # a diversity that is no number is refused too
        yield (
            f"diversity fell from the base's {base:.2f} to {candidate:.2f}, below {settings.diversity_ratio:.2f} of it"
        )


def drift_objections(drift: JudgeDrift, settings: GateSettings) -> Iterator[str]:
    """Yield why a candidate that drifted as a judge cannot be promoted, if it cannot."""
    if drift.num_failed:
        yield f"it could not judge {drift.num_failed} samples that the frozen judge could"
    if not abs(drift.shift) <= settings.drift_margin:
        yield (
            f"its judgement drifted by {drift.shift:+.2f} in log-odds from the frozen judge's, "
            f"more than {settings.drift_margin:.2f}"
        )
    if drift.auc is not None and not drift.auc >= settings.drift_auc:
        yield (
            f"its judgement agrees with the frozen judge's by an AUC of {drift.auc:.3f}, below {settings.drift_auc:.3f}"
        )
