"""In which order people are asked: where a label helps most, with a fair share at random. Pure.

Of ten reviews, two are of images drawn at random, from which unbiased shares follow; two are of images that somebody
else has reviewed, from which agreement between people follows (where there are such); the others are of the image on
which the assessors differ most, or, where none differ, the one nearest to the judge's decision boundary.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from illume_db.review_queue import Unreviewed
from illume_loop.assess.calibration import probability_of

TURNS = ("overlap", "boundary", "boundary", "random", "boundary")
"""What the next review is for, in turn."""
DIFFER = 0.5
"""Difference of probabilities from which assessors disagree: one says more likely than not, another clearly not."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The next sample with the reason why it is shown."""

    sample_id: int
    reason: str


def next_review(window: Sequence[Unreviewed], judge: str, num_done: int, seed: int) -> Chosen | None:
    """The next sample for a person who has dealt with `num_done`; None where nothing is left.

    `judge` is whose decision boundary counts. What is drawn at random follows from `seed` and the sample alone.
    """
    if not window:
        return None
    turn = TURNS[num_done % len(TURNS)]
    shared = [one for one in window if one.num_reviews]
    if turn == "overlap" and shared:
        return Chosen(min(shared, key=lambda one: (one.num_reviews, _draw(seed, one))).sample_id, "overlap")
    if turn == "random":
        return Chosen(min(window, key=lambda one: _draw(seed, one)).sample_id, "random")
    # Samples that others have dealt with come in their own turn: many people cover more together.
    fresh = [one for one in window if not one.num_reviews] or list(window)
    judged = probabilities(fresh, judge)
    spread = {one.sample_id: _spread(one, judged.get(one.sample_id), judge) for one in fresh}
    most = max(fresh, key=lambda one: (spread[one.sample_id], -one.sample_id))
    if spread[most.sample_id] >= DIFFER:
        return Chosen(most.sample_id, "disagreement")
    nearest = min(fresh, key=lambda one: (abs(judged.get(one.sample_id, math.inf) - 0.5), one.sample_id))
    return Chosen(nearest.sample_id, "boundary")


def probabilities(window: Sequence[Unreviewed], assessor: str) -> dict[int, float]:
    """Sample id to how likely an assessor takes it for right: calibrated where it is, else by its questions.

    Scores that are neither, such as likelihoods, only have an order: then it is the share of the window that scores
    lower, and the boundary is the median.
    """
    ranked = sorted(one.scores[assessor] for one in window if assessor in one.scores)
    found = {}
    for one in window:
        if assessor in one.probabilities:
            found[one.sample_id] = one.probabilities[assessor]
        elif assessor in one.yes_no:
            found[one.sample_id] = probability_of(one.yes_no[assessor])
        elif assessor in one.scores:
            found[one.sample_id] = (bisect_left(ranked, one.scores[assessor]) + 0.5) / len(ranked)
    return found


def _spread(one: Unreviewed, judged: float | None, judge: str) -> float:
    """How far the assessors of a sample lie apart, as probabilities."""
    told = [] if judged is None else [judged]
    for name in one.scores.keys() | one.probabilities.keys():
        if name == judge:
            continue
        if name in ("checker", "teacher"):
            told.append(one.scores[name])
        elif name in one.probabilities:
            told.append(one.probabilities[name])
        elif name in one.yes_no:
            told.append(probability_of(one.yes_no[name]))
    return max(told) - min(told) if told else 0.0


def _draw(seed: int, one: Unreviewed) -> float:
    return Random(f"review/{seed}/{one.sample_id}").random()
