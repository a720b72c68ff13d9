"""Several looks at a growing comparison, at the error of a single look.

Error spending after O'Brien and Fleming leaves almost all of the error to the last look (Lan and DeMets 1983), so the
early looks cost next to no power.

Invariants:
- With a true gain of zero, the chance that any look crosses its critical value is the error asked for.
- The intervals of all looks together miss the truth with at most twice that error (repeated confidence intervals,
  Jennison and Turnbull 1989).
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
"""The number of standard deviations beyond which the probability is taken as zero."""

NORMAL = NormalDist()
Floats = NDArray[np.float64]


@cache
def critical_values(shares: tuple[float, ...], error: float) -> tuple[float, ...]:
    """Return the z value that each look has to exceed, for a one-sided `error` over all looks.

    `shares` are the shares of all items that the looks have; they rise and end with 1. The sum of the items so far is
    followed as a Brownian motion. The part that has not crossed yet is integrated from look to look (Armitage,
    McPherson and Rowe 1969).
    """
    spent, before = 0.0, 0.0
    values: list[float] = []
    scores, weights = np.zeros(1), np.ones(1)  # possible values of the sum, and their probabilities
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
    """Return the probability, given `z` at a `share` of the items, that the last look crosses its critical value.

    This is the predictive power under a flat prior on the gain (Spiegelhalter, Freedman and Blackburn 1986).
    """
    return NORMAL.cdf((z / share**0.5 - last_value) / ((1 - share) / share) ** 0.5)


def _excess(bound: float, scores: Floats, weights: Floats, step: float, due: float) -> float:
    """Return the probability beyond `bound` after a step of standard deviation `step`, minus `due`."""
    return float(weights @ norm.sf((bound - scores) / step)) - due


def _spent_by(share: float, error: float) -> float:
    return 2 - 2 * NORMAL.cdf(NORMAL.inv_cdf(1 - error / 2) / share**0.5)
