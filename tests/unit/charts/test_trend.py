"""The curves of updates show what was measured, and leave out what was not."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from illume_loop.charts.trend import HEIGHT, WIDTH, trend, update_trends


def _update(index: int, **values: Any) -> dict[str, Any]:
    measured = {"rewards": {"self": -index}, "checked": None, "entropy": 1.0, "kl": None}
    return {"index": index, "num_without_variance": index, "num_groups": 4} | measured | values


def test_each_measure_that_is_known_has_a_curve() -> None:
    updates = [_update(1, rewards={"self": -2.0, "frozen": None}), _update(2, checked=0.5, kl=0.01)]
    drawn = dict(update_trends(updates))
    assert list(drawn) == [
        "Mean reward by self",
        "Drawn right by the checker, %",
        "Groups whose rewards are all equal, %",
        "Entropy, nats per image token",
        "KL to the base, nats per image token",
    ]
    assert "50 in update 2" in drawn["Drawn right by the checker, %"]
    assert "25 in update 1, 50 in update 2" in drawn["Groups whose rewards are all equal, %"]
    assert update_trends([]) == []


def test_a_curve_rises_with_its_values_and_stays_inside_whatever_they_are() -> None:
    for values in ([1.0, 3.0, 2.0], [5.0], [0.0, 0.0], [-1e-9, 1e9]):
        drawn = trend(list(enumerate(values, start=7)), "A & B")
        points = ElementTree.fromstring(drawn).find("polyline")
        assert points is not None
        places = [(float(x), float(y)) for x, y in re.findall(r"([-\d.]+),([-\d.]+)", points.attrib["points"])]
        assert len(places) == len(values)
        assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places)
        heights = [-y for _, y in places]
        assert sorted(range(len(values)), key=heights.__getitem__) == sorted(range(len(values)), key=values.__getitem__)
