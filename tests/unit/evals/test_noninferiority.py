"""The score test of paired shares: its error is the one that is stated, computed over everything that can happen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from illume_loop.evals.noninferiority import can_exclude_loss, items_for, paired_loss, score_bound
from illume_loop.settings import GateSettings

ERROR = 0.025


def _paired(lost: int, gained: int, n: int) -> float:
    before = [True] * lost + [False] * gained + [True] * (n - lost - gained)
    after = [False] * lost + [True] * gained + [True] * (n - lost - gained)
    return paired_loss(before, after, ERROR).low


def _chance_to_pass(n: int, margin: float, share_changed: float, change: float) -> float:
    """Of a version whose items change with this share, and whose right answers change by `change`; exact."""
    chance = 0.0
    for changed in range(n + 1):
        weight = binom.pmf(changed, n, share_changed)
        if weight < 1e-7:
            continue
        # The bound rises with the gains, so the least that pass are found by halving.
        low, high = 0, changed + 1
        while low < high:
            gained = (low + high) // 2
            if score_bound(changed - gained, gained, n, ERROR) > -margin:
                high = gained
            else:
                low = gained + 1
        chance += weight * binom.sf(low - 1, changed, (share_changed + change) / 2 / share_changed)
    return float(chance)


@pytest.mark.parametrize(("n", "margin", "share_changed"), [(150, 0.1, 0.1), (150, 0.1, 0.3), (300, 0.05, 0.06)])
def test_a_loss_of_the_margin_passes_as_seldom_as_stated(n: int, margin: float, share_changed: float) -> None:
    assert 0.001 < _chance_to_pass(n, margin, share_changed, -margin) <= 1.04 * ERROR


def test_the_defaults_let_the_unchanged_pass_and_stop_a_loss_of_four_points() -> None:
    """Outcomes of a version trained anew differ from its base's in 7 % of items; docs/experiments/gate has more."""
    gate = GateSettings()
    unchanged = _chance_to_pass(gate.probe_items, gate.understanding_margin, 0.07, 0.0)
    assert unchanged > 0.99
    assert _chance_to_pass(gate.probe_items, gate.understanding_margin, 0.07, -0.04) <= ERROR


def test_the_bound_is_known_where_nothing_changed() -> None:
    for n in (5, 43, 1000):
        assert _paired(0, 0, n) == pytest.approx(-(1.959964**2) / (n + 1.959964**2), abs=1e-6)


def test_the_ends() -> None:
    assert _paired(1000, 0, 1000) == -1.0
    assert 0.0 < _paired(0, 5, 5) < 0.2


def test_the_bound_rises_with_gains_and_nears_the_normal_one() -> None:
    bounds = [_paired(40, gained, 1000) for gained in range(0, 60, 5)]
    assert bounds == sorted(bounds)
    error = math.sqrt((0.08 - 0.0) / 1000)
    assert _paired(40, 40, 1000) == pytest.approx(-1.96 * error, rel=0.02)


def test_few_items_can_show_nothing() -> None:
    assert not can_exclude_loss(0.04, 92, ERROR)
    assert can_exclude_loss(0.04, 93, ERROR)
    assert can_exclude_loss(1.0, 5, ERROR)
    assert not can_exclude_loss(0.0, 10_000, ERROR)


def test_items_for_is_enough() -> None:
    n = items_for(0.08, 0.1, ERROR)
    assert 0.9 < _chance_to_pass(n, 0.08, 0.1, 0.0) < 0.98


def test_other_items_cannot_be_paired() -> None:
    for before, after in (([True], [True, False]), ([], [])):
        with pytest.raises(ValueError, match="cannot be paired"):
            paired_loss(before, after, ERROR)


def test_random_outcomes_are_counted() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.random((2, 300)) < 0.7
    found = paired_loss(before.tolist(), after.tolist(), ERROR)
    assert found.mean == pytest.approx(after.mean() - before.mean())
    assert (found.lost, found.gained) == (int((before & ~after).sum()), int((~before & after).sum()))
    assert found.low < found.mean
