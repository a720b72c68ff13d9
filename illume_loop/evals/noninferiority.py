"""The test of non-inferiority: a version may not lose more than a margin on the same items as another one.

The test is Tango's score test of paired shares (Tango 1998), which keeps its error when few outcomes differ. Its
interval is what the test does not reject.

Invariants:
- A version that has truly lost the margin or more passes with at most the error asked for, up to the inaccuracy of the
  score test (docs/experiments/gate measures it).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

from scipy.optimize import brentq

NORMAL = NormalDist()
FALSE_FAILURE_RATE = 0.05
"""The chance of failing an unchanged version that `items_for` allows."""


@dataclass(frozen=True, slots=True)
class PairedLoss:
    """The change of a share on the same items: its mean, and its lower bound at the one-sided error.

    Of `n` items, `lost` went from true to false and `gained` from false to true.
    """

    mean: float
    low: float
    n: int
    lost: int
    gained: int


def paired_loss(before: Sequence[bool], after: Sequence[bool], error: float) -> PairedLoss:
    """Compare outcomes of the same items with a one-sided `error`. Raises ValueError if they cannot be paired."""
    if len(before) != len(after) or len(before) == 0:
        raise ValueError(f"{len(before)} outcomes cannot be paired with {len(after)}")
    pairs = list(zip(before, after, strict=True))
    lost, gained = pairs.count((True, False)), pairs.count((False, True))
    n = len(pairs)
    return PairedLoss((gained - lost) / n, score_bound(lost, gained, n, error), n, lost, gained)


def can_exclude_loss(margin: float, num_items: int, error: float) -> bool:
    """Return True if `num_items` items exclude a loss of `margin` in the best case, when no outcome changes."""
    return score_bound(0, 0, num_items, error) > -margin


def items_for(margin: float, share_changed: float, error: float) -> int:
    """Return the number of items with which an unchanged version fails in only WELL_ABOVE of trials.

    `share_changed` is the share of items whose outcome differs, by chance, between the two versions. The result is 0
    for a margin of 0.
    """
    distances = NORMAL.inv_cdf(1 - error) + NORMAL.inv_cdf(1 - FALSE_FAILURE_RATE)
    return math.ceil(share_changed * (distances / margin) ** 2) if margin else 0


def score_bound(lost: int, gained: int, n: int, error: float) -> float:
    """Return the smallest change of a share that the score test does not reject.

    `lost` and `gained` are the items that changed, of `n`.
    """
    mean = (gained - lost) / n
    z = NORMAL.inv_cdf(1 - error)
    lowest = -1 + 1e-12
    if mean <= lowest:
        return -1.0
    return float(brentq(lambda change: _score(lost, gained, n, change) - z, lowest, mean))


def _score(lost: int, gained: int, n: int, change: float) -> float:
    """Return by how many standard errors the observed change lies above the supposed `change`.

    The value falls as `change` rises.
    """
    distance = gained - lost - n * change
    # The most probable share of losses, if gains minus losses are `change`, is the root of a quadratic.
    b = -(lost + gained) + (2 * n - gained + lost) * change
    c = -lost * change * (1 - change)
    share_lost = (math.sqrt(max(0.0, b * b - 8 * n * c)) - b) / (4 * n)
    variance = n * (2 * share_lost + change * (1 - change))
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0
