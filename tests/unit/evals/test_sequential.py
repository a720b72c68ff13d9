"""Looking several times is wrong no more often than looking once."""

from __future__ import annotations

import numpy as np
import pytest

from illume_loop.evals.sequential import chance_of_crossing, critical_values


@pytest.mark.parametrize(
    ("shares", "published"),
    [
        ((1.0,), (1.960,)),
        ((1 / 3, 2 / 3, 1.0), (3.710, 2.511, 1.993)),
        ((0.25, 0.5, 0.75, 1.0), (4.333, 2.963, 2.359, 2.014)),
        ((0.2, 0.4, 0.6, 0.8, 1.0), (4.877, 3.357, 2.680, 2.290, 2.031)),
    ],
)
def test_critical_values_are_those_of_the_literature(shares: tuple[float, ...], published: tuple[float, ...]) -> None:
    """Two-sided error of 5 % spent after O'Brien and Fleming, as programs for group-sequential trials print it."""
    assert critical_values(shares, 0.025) == pytest.approx(published, abs=1e-3)


@pytest.mark.parametrize("error", [0.005, 0.025, 0.1])
def test_the_error_over_all_looks_is_the_one_asked_for(error: float) -> None:
    shares = (0.25, 0.5, 1.0)
    steps = np.sqrt(np.diff([0.0, *shares]))
    sums = np.cumsum(np.random.default_rng(0).standard_normal((200_000, 3)) * steps, axis=1)
    crossed = (sums / np.sqrt(shares) > critical_values(shares, error)).any(axis=1)
    assert crossed.mean() == pytest.approx(error, abs=4 * (error / 200_000) ** 0.5)


def test_the_chance_is_the_share_of_continuations_that_cross() -> None:
    generator = np.random.default_rng(0)
    share, z, last = 0.25, 0.8, 1.97
    gains = z / share**0.5 + generator.standard_normal(200_000) / share**0.5  # flat prior: gains given z, per unit
    final = z * share**0.5 + gains * (1 - share) + generator.standard_normal(200_000) * (1 - share) ** 0.5
    assert chance_of_crossing(z, share, last) == pytest.approx((final > last).mean(), abs=0.005)


def test_the_chance_rises_with_what_was_seen() -> None:
    chances = [chance_of_crossing(z, 0.5, 1.97) for z in (float("-inf"), -1.0, 0.0, 1.0, 3.0)]
    assert chances == sorted(chances)
    assert chances[0] == 0.0
