"""The gate's guards over right answers: what a candidate must not have lost of what its run's base can. Pure.

A guard is a test of non-inferiority on the same items (evals/noninferiority.py): it passes where a loss of its margin
is excluded with the error (1 - confidence) / 2, not where the share happens to lie within the margin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from illume_loop.config import GateSettings
from illume_loop.evals.noninferiority import PairedLoss, can_show, items_for, paired_loss


@dataclass(frozen=True, slots=True)
class Guarded:
    """What a guard found: the base's share, the paired change, and whether it could be tested at all."""

    name: str
    base_share: float
    loss: PairedLoss
    margin: float
    error: float

    @property
    def tested(self) -> bool:
        """Whether the items are enough to exclude the margin, were no outcome to change."""
        return can_show(self.margin, self.loss.n, self.error)

    @property
    def passed(self) -> bool:
        """Whether a loss of the margin is excluded; of too few items, whether the share lies within the margin.

        A margin of 1 allows every loss.
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
        """Return the test as JSON: change and its bound as shares, margin, items, and whether it was one."""
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


def guarded(
    name: str, base: Sequence[bool], candidate: Sequence[bool], margin: float, settings: GateSettings
) -> Guarded:
    """Compare a candidate's outcomes with those of the run's base on the same items."""
    error = (1 - settings.confidence) / 2
    return Guarded(name, share(base), paired_loss(base, candidate, error), margin, error)


def share(outcomes: Sequence[bool]) -> float:
    """Return the share of true outcomes."""
    return sum(outcomes) / len(outcomes)
