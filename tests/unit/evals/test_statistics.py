"""Intervals cover as often as they say, and agreement counts ties half."""

from __future__ import annotations

import numpy as np
import pytest

from illume_loop.evals.statistics import (
    auc,
    clustered_interval,
    mean_of,
    paired_bootstrap,
    paired_bootstrap_error,
    student_interval,
    wilson_interval,
)


def test_wilson_matches_published_values() -> None:
    """Newcombe 1998, table I: 81 of 263 is 0.2553 to 0.3662; 0 of 20 is 0 to 0.1611."""
    interval = wilson_interval([True] * 81 + [False] * 182)
    assert interval.low == pytest.approx(0.2553, abs=1e-4)
    assert interval.high == pytest.approx(0.3662, abs=1e-4)
    none = wilson_interval([False] * 20)
    assert none.low == pytest.approx(0.0, abs=1e-12)
    assert none.high == pytest.approx(0.1611, abs=1e-4)


def test_wilson_needs_outcomes() -> None:
    with pytest.raises(ValueError, match="at least one"):
        wilson_interval([])


def test_the_bootstrap_pairs() -> None:
    """A gain of one item in ten is certain when pairs differ one way only, although the two shares overlap widely."""
    before = [True, False] * 100
    after = [outcome or index % 10 == 1 for index, outcome in enumerate(before)]
    gain = paired_bootstrap(before, after)
    assert gain.mean == pytest.approx(0.1)
    assert gain.low > 0.05
    unpaired = paired_bootstrap(before, after[1:] + after[:1])
    assert unpaired.low < 0.0 < unpaired.high


def test_the_bootstrap_covers_as_often_as_it_says() -> None:
    """The true gain of 0.1 lies in the 90 % interval in 86 to 94 of 100 trials (fixed seeds)."""
    generator = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        before = generator.random(200) < 0.4
        after = np.where(generator.random(200) < 0.5, generator.random(200) < 0.6, before)
        interval = paired_bootstrap(before, after, confidence=0.9, resamples=400, seed=trial)
        covered += interval.low <= 0.1 <= interval.high
    assert 172 <= covered <= 188


def test_the_bootstraps_error_is_that_of_the_mean() -> None:
    before, after = [0.0] * 400, [1.0] * 100 + [0.0] * 300
    assert paired_bootstrap_error(before, after) == pytest.approx((0.25 * 0.75 / 400) ** 0.5, rel=0.05)
    assert paired_bootstrap_error(after, after) == 0.0


def test_the_bootstrap_repeats_itself() -> None:
    outcomes = [True, False, True, True] * 25, [False, True, True, True, True] * 20
    assert paired_bootstrap(*outcomes, seed=1) == paired_bootstrap(*outcomes, seed=1)
    assert paired_bootstrap_error(*outcomes, seed=1) != paired_bootstrap_error(*outcomes, seed=2)


@pytest.mark.parametrize(("before", "after"), [([], []), ([1.0], [1.0, 2.0])])
def test_the_bootstrap_refuses_what_cannot_be_paired(before: list[float], after: list[float]) -> None:
    with pytest.raises(ValueError, match="paired"):
        paired_bootstrap(before, after)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([3.0, 2.0, 1.0], [True, False, False], 1.0),
        ([1.0, 2.0, 3.0], [True, False, False], 0.0),
        ([1.0, 1.0, 1.0], [True, False, False], 0.5),
        ([1.0, 2.0, 1.0, 0.0], [True, True, False, False], 0.875),
        ([1.0, 2.0], [True, True], None),
        ([], [], None),
    ],
)
def test_auc(scores: list[float], labels: list[bool], expected: float | None) -> None:
    assert auc(scores, labels) == expected


def test_auc_needs_a_label_for_each_score() -> None:
    with pytest.raises(ValueError, match="2 scores for 1 labels"):
        auc([1.0, 2.0], [True])


def test_students_interval_matches_published_values() -> None:
    """Student's t at 97.5 % with 2 degrees of freedom is 4.303; the standard error of 1, 2, 3 is 1 / sqrt(3)."""
    interval = student_interval([1.0, 2.0, 3.0])
    assert interval is not None
    assert (interval.mean, interval.n) == (2.0, 3)
    assert interval.high - 2.0 == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert student_interval([1.0]) is None


def test_images_of_one_prompt_count_as_much_as_they_differ() -> None:
    alike = [[True] * 4] * 30 + [[False] * 4] * 20
    independent = [[True, False, True, False]] * 25 + [[True, True, True, False]] * 25
    as_prompts = wilson_interval([True] * 30 + [False] * 20)
    found = clustered_interval(alike)
    assert (found.mean, found.n) == (0.6, 200)
    assert (found.low, found.high) == pytest.approx((as_prompts.low, as_prompts.high), abs=1e-3)
    assert clustered_interval(independent).high - clustered_interval(independent).low < found.high - found.low
    right = clustered_interval([[True] * 4] * 50)
    assert (right.mean, right.low) == (1.0, pytest.approx(wilson_interval([True] * 50).low))
    with pytest.raises(ValueError, match="at least one"):
        clustered_interval([])


def test_clustered_intervals_cover_what_they_should() -> None:
    """2,000 samples of 60 prompts with 4 images, whose chances differ from prompt to prompt."""
    generator = np.random.default_rng(0)
    covered = []
    for _ in range(2000):
        chances = generator.beta(0.6, 0.4, size=60)
        clusters = generator.random((60, 4)) < chances[:, None]
        found = clustered_interval(clusters.tolist())
        covered.append(found.low <= 0.6 <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_the_mean_of_categories_has_the_interval_of_their_mean() -> None:
    generator = np.random.default_rng(1)
    chances = (0.95, 0.8, 0.5, 0.3)
    covered = []
    for _ in range(2000):
        parts = [wilson_interval((generator.random(80) < chance).tolist()) for chance in chances]
        found = mean_of(parts)
        covered.append(found.low <= np.mean(chances) <= found.high)
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)
    assert found.n == 320
    with pytest.raises(ValueError, match="at least one"):
        mean_of([])
