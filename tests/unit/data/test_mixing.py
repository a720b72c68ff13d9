"""The mix is exact, goes through all rows before it repeats one, and is a function of seed and position alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from illume_loop.data.mixing import PERIOD, WINDOW, Mix, shuffled


def test_shares_are_exact_and_every_row_comes_once_in_a_pass() -> None:
    rows = [np.arange(0, 700), np.arange(1_000, 1_090), np.array([5])]
    mix = Mix([0.7, 0.25, 0.05], rows, seed=3, purpose="stage1")
    chosen = [mix.at(position) for position in range(2 * PERIOD)]
    for period in (chosen[:PERIOD], chosen[PERIOD:]):
        assert Counter(one.part for one in period) == {0: 700, 1: 250, 2: 50}
    for part, taken in ((0, rows[0]), (1, rows[1]), (2, rows[2])):
        of_part = [one.row for one in chosen if one.part == part]
        for start in range(0, len(of_part) - len(taken) + 1, len(taken)):
            assert sorted(of_part[start : start + len(taken)]) == taken.tolist()
    first, second = ([one.row for one in chosen if one.part == 1][i * 90 : i * 90 + 90] for i in (0, 1))
    assert first != second, "another order each time"


def test_positions_need_no_history() -> None:
    rows = [np.arange(50), np.arange(30)]
    one, two = (Mix([1, 2], rows, seed=0, purpose="x") for _ in range(2))
    backwards = {position: two.at(position) for position in reversed(range(1_500))}
    for position in (0, 7, 999, 1_000, 1_499):
        chosen = one.at(position)
        again = backwards[position]
        assert (chosen.part, chosen.row, chosen.rng.random()) == (again.part, again.row, again.rng.random())
    others = [Mix([1, 2], rows, seed=1, purpose="x"), Mix([1, 2], rows, seed=0, purpose="y")]
    for other in others:
        assert [other.at(p).row for p in range(50)] != [one.at(p).row for p in range(50)]


@pytest.mark.parametrize("size", [1, 10, WINDOW, WINDOW + 1, 3 * WINDOW + 5])
def test_an_order_has_every_row_and_keeps_neighbours_near(size: int) -> None:
    order = [shuffled(index, size, "key") for index in range(size)]
    assert sorted(order) == list(range(size))
    assert len({index // WINDOW for index in order[:WINDOW]}) <= 2


def test_what_cannot_be_mixed_is_refused() -> None:
    with pytest.raises(ValueError, match="part 1 has no rows"):
        Mix([1, 1], [np.arange(3), np.arange(0)], 0, "x")
    with pytest.raises(ValueError, match="part 1 has too small a weight"):
        Mix([1, 1e-5], [np.arange(3), np.arange(3)], 0, "x")
