"""Looking more than once at a growing comparison without being wrong more often than at one look.

Guarantee: with a true gain of zero, the chance that any look crosses its critical value is the error that was asked
for. Spending after O'Brien and Fleming leaves almost all of it to the last look (Lan and DeMets 1983), so that looking
early costs next to no power. The intervals of all looks together miss the truth with at most twice that error (repeated
confidence intervals, Jennison and Turnbull 1989).
"""

from __future__ import annotations

from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

GRID_POINTS = 801
FAR = 8.0
"""Standard deviations beyond which nothing is left."""

NORMAL = NormalDist()
Floats = NDArray[np.float64]


@cache
def critical_values(shares: tuple[float, ...], error: float) -> tuple[float, ...]:
    """The z values to be exceeded when these `shares` of all items are in, for a one-sided `error` over all looks.

    The sum of all items so far is followed as a Brownian motion; what has not crossed yet is integrated from look to
    look (Armitage, McPherson and Rowe 1969). `shares` rise and end with 1.
    """
    spent, before = 0.0, 0.0
    values: list[float] = []
    scores, weights = np.zeros(1), np.ones(1)  # where the sum may be, and how probable that is
    for share in shares:
        step = np.sqrt(share - before)
        edge = FAR * np.sqrt(share)
        due = _spent_by(share, error) - spent
        bound = brentq(_excess, -edge, edge, args=(scores, weights, step, due))
        grid = np.linspace(-edge, bound, GRID_POINTS)
        density = norm.pdf((grid[:, None] - scores[None, :]) / step) @ weights / step
        width = grid[1] - grid[0]
        scores, weights = grid, density * width
        weights[[0, -1]] /= 2
        values.append(float(bound / np.sqrt(share)))
        spent, before = spent + due, share
    return tuple(values)


def chance_of_crossing(z: float, share: float, last_value: float) -> float:
    """How probable it is, given `z` at a `share` of the items, that the last look crosses its critical value.

    This is the predictive power under a flat prior on the gain (Spiegelhalter, Freedman and Blackburn 1986).
    """
    return NORMAL.cdf((z / share**0.5 - last_value) / ((1 - share) / share) ** 0.5)


def _excess(bound: float, scores: Floats, weights: Floats, step: float, due: float) -> float:
    """How much more than `due` lies beyond `bound` after a step of this standard deviation."""
    return float(weights @ norm.sf((bound - scores) / step)) - due


def _spent_by(share: float, error: float) -> float:
    return 2 - 2 * NORMAL.cdf(NORMAL.inv_cdf(1 - error / 2) / share**0.5)
