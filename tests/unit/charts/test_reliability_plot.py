"""The reliability plot puts every bin where its numbers are, and stands alone."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from illume_loop.charts.reliability import LEFT, SIZE, TOP, reliability_plot
from illume_loop.evals.reliability import reliability

NAMESPACE = {"svg": "http://www.w3.org/2000/svg"}
FOUND = reliability([0.25] * 8 + [0.75] * 4, [False] * 6 + [True] * 2 + [True] * 4)


def test_marks_lie_where_the_numbers_are() -> None:
    root = ET.fromstring(reliability_plot(FOUND, "shapes"))
    circles = root.findall(".//svg:g/svg:circle", NAMESPACE)
    assert [(float(mark.attrib["cx"]), float(mark.attrib["cy"])) for mark in circles] == [
        (LEFT + 0.25 * SIZE, TOP + 0.75 * SIZE),
        (LEFT + 0.75 * SIZE, TOP),
    ]
    assert float(circles[0].attrib["r"]) ** 2 == pytest.approx(2 * float(circles[1].attrib["r"]) ** 2, rel=0.05)


def test_the_head_says_the_numbers_and_nothing_is_fetched() -> None:
    text = reliability_plot(FOUND, "a <judge>")
    assert "a &lt;judge&gt;: n 12, AUC 0.833, Brier 0.146, ECE 0.083" in text
    assert text.count("http") == 1, "the namespace only"


def test_labels_of_one_kind_have_no_auc() -> None:
    assert "AUC -" in reliability_plot(reliability([0.5], [True]), "x")
