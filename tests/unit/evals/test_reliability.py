"""Reliability against numbers worked out by hand, and against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score

from illume_loop.evals.reliability import NUM_BINS, reliability


def test_by_hand() -> None:
    """Bins 0.0-0.1 (one item, false), 0.2-0.3 (two, one true), 0.9-1.0 (two, both true; 1.0 belongs to it)."""
    found = reliability([0.05, 0.2, 0.3 - 1e-9, 0.9, 1.0], [False, True, False, True, True])
    assert [(part.low, part.high, part.true.n, part.true.mean) for part in found.bins] == [
        (0.0, 0.1, 1, 0.0),
        (0.2, 0.3, 2, 0.5),
        (0.9, 1.0, 2, 1.0),
    ]
    assert found.ece == pytest.approx((0.05 + 2 * abs(0.25 - 0.5) + 2 * 0.05) / 5)
    assert found.brier == pytest.approx((0.05**2 + 0.8**2 + 0.3**2 + 0.1**2) / 5)
    assert found.auc == pytest.approx(5 / 6)
    assert found.share_true == 0.6


def test_agrees_with_scikit_learn() -> None:
    generator = np.random.default_rng(3)
    said = generator.random(500)
    true = generator.random(500) < said**2
    found = reliability(said.tolist(), true.tolist())
    assert found.auc == pytest.approx(roc_auc_score(true, said))
    assert found.brier == pytest.approx(brier_score_loss(true, said))
    assert sum(part.true.n for part in found.bins) == found.n == 500


def test_true_probabilities_are_reliable_and_bold_ones_are_not() -> None:
    generator = np.random.default_rng(0)
    said = generator.random(20_000)
    true = (generator.random(20_000) < said).tolist()
    assert reliability(said.tolist(), true).ece < 0.02
    bold = 1 / (1 + (1 / said - 1) ** 4)
    assert reliability(bold.tolist(), true).ece > 0.1


def test_one_kind_of_labels_has_no_auc() -> None:
    assert reliability([0.2, 0.4], [True, True]).auc is None


@pytest.mark.parametrize(
    ("said", "true"), [([], []), ([0.5], [True, False]), ([1.5], [True]), ([float("nan")], [True]), ([-0.1], [False])]
)
def test_what_is_no_probability_is_refused(said: list[float], true: list[bool]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        reliability(said, true)


def test_the_bins_are_ten() -> None:
    assert NUM_BINS == 10
    assert len(reliability(np.linspace(0, 1, 101).tolist(), [True] * 101).bins) == 10
