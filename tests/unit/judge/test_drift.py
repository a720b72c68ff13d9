"""Drift by hand: what a bolder, a milder and a confused judge look like."""

from __future__ import annotations

import math

import pytest

from illume_loop.judge.agreement import JudgeDrift, drift_between

FROZEN = [-3.0, -1.0, 0.5, 2.0]


def test_the_same_judge_has_not_drifted() -> None:
    assert drift_between(FROZEN, FROZEN) == JudgeDrift(n=4, shift=0.0, auc=1.0, num_failed=0)


def test_a_judge_that_became_milder_is_shifted_and_agrees() -> None:
    assert drift_between([value + 1.5 for value in FROZEN], FROZEN) == JudgeDrift(4, 1.5, 1.0, 0)


def test_a_confused_judge_is_not_shifted_and_disagrees() -> None:
    found = drift_between([2.0, 0.5, -1.0, -3.0], FROZEN)
    assert (found.shift, found.auc) == (0.0, 0.0)


def test_images_that_the_frozen_judge_takes_for_the_same_give_no_auc() -> None:
    assert drift_between([1.0, 2.0], [0.5, 0.1]).auc is None


@pytest.mark.parametrize("failed", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_counted_and_not_averaged(failed: float) -> None:
    assert drift_between([failed, -1.0, 0.5, 3.0], FROZEN) == JudgeDrift(3, pytest.approx(1 / 3), 1.0, 1)
    assert drift_between([-3.0, -1.0], [failed, -1.0]).num_failed == 0, "the frozen judge is the measure"
    assert drift_between([failed] * 4, FROZEN) == JudgeDrift(0, 0.0, None, 4)


def test_images_must_be_the_same() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        drift_between([1.0], FROZEN)
