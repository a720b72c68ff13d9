"""Best-of-n rejection: what is kept, what ties do, and what a judge without a score does."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illume_loop.loop.stages.curate import Scored, accept, shuffled
from illume_loop.settings import CurateSettings


def _accept(
    scores: list[list[float | None]],
    *,
    keep: int = 2,
    drop: float = 0.0,
    margin: float = 0.0,
    floor: float | None = None,
) -> list[tuple[int, int]]:
    samples = [Scored(p, i, score) for p, of_prompt in enumerate(scores) for i, score in enumerate(of_prompt)]
    settings = CurateSettings(keep_per_prompt=keep, drop_lowest=drop, margin=margin)
    return accept(samples[::-1], settings, floor)


def test_the_best_of_each_prompt_are_kept() -> None:
    assert _accept([[1.0, 3.0, 2.0], [9.0, 7.0, 8.0]]) == [(0, 1), (0, 2), (1, 0), (1, 2)]


def test_the_lowest_share_of_all_that_was_kept_is_dropped() -> None:
    assert _accept([[5.0, 4.0, 0.0], [1.0, 2.0, 0.0]], drop=0.5) == [(0, 0), (0, 1)]


def test_the_lowest_share_is_dropped_within_each_category() -> None:
    """Likelihoods of long prompts are lower than those of short ones, whatever the images show."""
    samples = [
        Scored(p, 0, score, category)
        for p, (score, category) in enumerate([(-1, "a"), (-2, "a"), (-8, "b"), (-9, "b")])
    ]
    assert accept(samples, CurateSettings(keep_per_prompt=1, drop_lowest=0.5)) == [(0, 0), (2, 0)]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.floats(0.05, 1.0))
def test_no_category_has_more_than_its_share_and_the_best_stay(sizes: list[int], share: float) -> None:
    samples = [Scored(100 * c + i, 0, float(i % 7), f"{c}") for c, size in enumerate(sizes) for i in range(size)]
    kept = set(accept(samples, CurateSettings(keep_per_prompt=1, drop_lowest=0.0, category_share=share)))
    scores = {sample.key: sample.score or 0.0 for sample in samples}
    for c in range(len(sizes)):
        of_category = [s.key for s in samples if s.category == f"{c}"]
        inside, outside = [k for k in of_category if k in kept], [k for k in of_category if k not in kept]
        assert len(inside) <= max(share, 1 / len(sizes)) * len(kept) + 1e-6
        assert min(scores[k] for k in inside) >= max((scores[k] for k in outside), default=0.0)


@pytest.mark.parametrize(
    ("margin", "expected"),
    [(0.0, [(0, 0), (0, 1)]), (0.4, [(0, 0), (0, 1)]), (0.6, [(0, 0)]), (5.0, [])],
)
def test_a_margin_separates_kept_from_rejected(margin: float, expected: list[tuple[int, int]]) -> None:
    assert _accept([[4.0, 3.0, 2.5]], margin=margin) == expected


def test_a_margin_asks_nothing_where_nothing_is_rejected() -> None:
    assert _accept([[1.0, 1.0]], margin=3.0) == [(0, 0), (0, 1)]


def test_ties_at_the_limit_go_to_the_lower_index() -> None:
    assert _accept([[1.0, 2.0, 2.0, 2.0]]) == [(0, 1), (0, 2)]


def test_ties_at_the_cut_share_one_fate() -> None:
    """A judge of two values would otherwise lose a share of its passes by their order."""
    assert len(_accept([[1.0, 1.0, 0.0]] * 10, drop=0.3)) == 20
    assert _accept([[1.0, 1.0], [1.0, 0.0]], drop=0.3) == [(0, 0), (0, 1), (1, 0)]


def test_scores_below_the_floor_are_never_accepted() -> None:
    assert _accept([[0.0, 0.0], [1.0, 0.0]], floor=1.0) == [(1, 0)]


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_sample_without_a_score_is_neither_kept_nor_low(missing: float | None) -> None:
    assert _accept([[missing, -5.0, missing], [missing, missing, missing]]) == [(0, 1)]
    assert _accept([[missing, -5.0, -6.0, -7.0]], drop=0.5) == [(0, 1)]


@given(
    st.lists(st.lists(st.floats(-9, 9), min_size=1, max_size=6), min_size=1, max_size=8),
    st.integers(1, 4),
    st.floats(0, 0.9),
)
def test_whatever_the_scores(scores: list[list[float]], keep: int, drop: float) -> None:
    """At most `keep` of a prompt, at least the undropped share, and nothing accepted scores below a rejected one of
    its prompt."""
    accepted = _accept([list(row) for row in scores], keep=keep, drop=drop)
    eligible = sum(min(keep, len(row)) for row in scores)
    assert (1 - drop) * eligible - 1e-9 <= len(accepted) <= eligible
    for position, row in enumerate(scores):
        chosen = [index for p, index in accepted if p == position]
        assert len(chosen) <= keep
        rejected = [row[index] for index in range(len(row)) if index not in chosen]
        assert not chosen or not rejected or min(row[index] for index in chosen) >= max(rejected)


def test_shuffled_scores_are_the_same_scores_elsewhere() -> None:
    scores = {(position, index): float(10 * position + index) for position in range(8) for index in range(4)}
    dealt = shuffled(scores, 3)
    assert sorted(dealt.values()) == sorted(scores.values())
    assert dealt.keys() == scores.keys()
    assert dealt != scores
    assert dealt == shuffled(dict(reversed(scores.items())), 3)
    assert dealt != shuffled(scores, 4)
