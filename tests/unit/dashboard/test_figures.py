"""Figures without a style of their own, with their numbers in words."""

from __future__ import annotations

import math
import re

import pytest

from illume_loop.charts.bars import BAR_WIDTH, log_odds_bar, spans
from illume_loop.dashboard.routes.models import tree


def test_bars_go_left_for_no_and_right_for_yes_and_end_somewhere() -> None:
    for value, kind, x, width in ((4.0, "yes", 120, 60), (-4.0, "no", 60, 60), (99.0, "yes", 120, 120)):
        bar = str(log_odds_bar(value))
        assert f'aria-label="log-odds {value:+.2f}, {kind}"' in bar
        found = re.search(rf'class="{kind}" x="([\d.]+)" y="1" width="([\d.]+)"', bar)
        assert found
        assert (float(found[1]), float(found[2])) == (x, width)
        assert "style" not in bar
    assert BAR_WIDTH == 240
    assert "no number" in log_odds_bar(None)
    assert "no number" in log_odds_bar(math.nan)


def test_intervals_share_a_scale_that_holds_them_and_names_are_escaped() -> None:
    rows = [
        ("<b>", {"mean": 0.41, "low": 0.37, "high": 0.45}, "parent"),
        ("gain", {"mean": -0.02, "low": None, "high": None}, "gain"),
        ("nothing", None, "gain"),
    ]
    drawn = str(spans(rows, "percent"))
    assert "<b>" not in drawn
    assert "&lt;b&gt; 41.0 from 37.0 to 45.0 percent; gain -2.0 percent" in drawn
    assert drawn.count("<circle") == 2
    assert 'class="zero"' in drawn
    places = [float(found) for found in re.findall(r'cx="([\d.]+)"', drawn)]
    assert 92 <= places[1] < places[0] <= 520
    assert spans([("nothing", None, "gain")], "percent") == ""
    ticks = [float(found) for found in re.findall(r'text-anchor="middle">([-0-9.]+)<', drawn)]
    assert ticks == [-15, 0, 15, 30, 45]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.245, 0.612, [15, 30, 45, 60, 75]),
        (0.5, 0.5, [50, 51, 52, 53, 54]),
        (0.0, 1.0, [0, 25, 50, 75, 100]),
        (-0.98, 0.98, [-100, -50, 0, 50, 100]),
        (-0.02, 0.03, [-2, 0, 2, 4, 6]),
    ],
)
def test_scales_are_round_and_hold_both_ends(low: float, high: float, expected: list[float]) -> None:
    drawn = str(spans([("x", {"mean": (low + high) / 2, "low": low, "high": high}, "gain")], "percent"))
    assert [float(found) for found in re.findall(r'text-anchor="middle">([-0-9.]+)<', drawn)] == expected


def test_versions_stand_below_their_parents() -> None:
    parents = {"v0001": None, "v0002": "v0001", "v0003": "v0001", "v0004": "v0002"}
    found = tree([{"name": name, "parent": parent} for name, parent in parents.items()])
    assert [(row["name"], row["depth"]) for row in found] == [("v0001", 0), ("v0002", 1), ("v0004", 2), ("v0003", 1)]
