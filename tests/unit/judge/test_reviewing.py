"""Whom the queue asks about what: the turns, what helps most, and a fair share at random."""

from __future__ import annotations

import pytest

from illume_db.review_queue import Unreviewed
from illume_loop.judge.reviews import TURNS, next_review, probabilities


def _one(sample_id: int, judged: float | None = None, checker: float | None = None, num_reviews: int = 0) -> Unreviewed:
    probability = {} if judged is None else {"self": judged}
    return Unreviewed(sample_id, {} if checker is None else {"checker": checker}, probability, {}, num_reviews)


def test_what_the_assessors_differ_on_comes_first_then_what_is_near_the_boundary() -> None:
    window = [_one(1, 0.9, 1.0), _one(2, 0.9, 0.0), _one(3, 0.45, 0.0), _one(4, 0.8, 0.0)]
    order = []
    while window:
        chosen = next_review(window, "self", 1, seed=0)
        assert chosen is not None
        order.append((chosen.sample_id, chosen.reason))
        window = [one for one in window if one.sample_id != chosen.sample_id]
    assert order == [(2, "disagreement"), (4, "disagreement"), (3, "boundary"), (1, "boundary")]
    assert next_review([], "self", 1, seed=0) is None


def test_a_fifth_is_drawn_at_random_and_a_fifth_of_what_others_reviewed() -> None:
    window = [_one(number, 0.9, 1.0, num_reviews=int(number == 7)) for number in range(20)]
    reasons = [chosen.reason for n in range(10) if (chosen := next_review(window, "self", n, seed=1))]
    assert [reasons.count(name) for name in ("overlap", "random", "boundary")] == [2, 2, 6]
    first = next_review(window, "self", TURNS.index("overlap"), seed=1)
    assert first is not None
    assert (first.sample_id, first.reason) == (7, "overlap")
    drawn = {seed: next_review(window, "self", TURNS.index("random"), seed=seed) for seed in range(40)}
    assert len({chosen.sample_id for chosen in drawn.values() if chosen}) > 10
    assert drawn[3] == next_review(window, "self", TURNS.index("random"), seed=3)


def test_scores_without_a_calibration_count_by_their_questions_or_by_their_order() -> None:
    asked = [Unreviewed(1, {"self": 5.0}, {}, {"self": 2.0}, 0), Unreviewed(2, {"self": 9.0}, {}, {"self": -2.0}, 0)]
    assert probabilities(asked, "self") == pytest.approx({1: 0.881, 2: 0.119}, abs=1e-3)
    ranked = [Unreviewed(number, {"self": -10.0 * number}, {}, {}, 0) for number in range(4)]
    assert probabilities(ranked, "self") == {0: 0.875, 1: 0.625, 2: 0.375, 3: 0.125}
