"""The page is one file, escapes every text, and says what is missing."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from illume_loop.charts.curve import curve, marks
from illume_loop.charts.numbers import gain, interval, number, percent
from illume_loop.evals.statistics import wilson_interval
from illume_loop.report.render import Card, Page, Pair, Sheet, StudyTable, render
from illume_loop.report.summary import commands, summary
from illume_loop.settings import load_settings

SETTINGS = load_settings(None, {"run.domain": "shapes"}, environ={}).resolved()
EVIL = "<script>alert('x')</script> & \"more\""


def _round(
    index: int, decision: str | None, parent: float | None = 0.4, candidate: float | None = 0.5
) -> dict[str, Any]:
    def estimate(mean: float | None) -> dict[str, float] | None:
        return None if mean is None else {"mean": mean, "low": mean - 0.04, "high": mean + 0.04, "n": 512}

    both = parent is not None and candidate is not None
    return {
        "index": index,
        "state": decision or "sampling",
        "parent": "v0001",
        "candidate": None if candidate is None else "v0002",
        "heldout": {
            "parent": estimate(parent),
            "candidate": estimate(candidate),
            "delta": estimate(candidate - parent) if both else None,
        },
        "judge_auc": 0.91,
        "diversity": {"parent": 0.62, "candidate": None},
        "understanding": {"parent": None, "candidate": None},
        "editing": None,
        "judge_drift": None,
        "decodes": None,
        "at_setting": None,
        "looks": None,
        "closing": None,
        "samples": 1024,
        "accepted": 301,
        "decision": decision,
        "reasons": [EVIL] if decision else [],
    }


class _Tags(HTMLParser):
    VOID = ("meta", "br", "img", "link")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _parsed(html: str) -> _Tags:
    tags = _Tags()
    tags.feed(html)
    tags.close()
    assert tags.open == []
    return tags


def _cells_of(html: str) -> list[list[int]]:
    """The widths of the cells of each row of the first table."""
    rows: list[list[int]] = []
    for tag, attributes in _parsed(html.partition("</table>")[0].partition("<table>")[2].join(("<b>", "</b>"))).seen:
        if tag == "tr":
            rows.append([])
        elif tag in ("td", "th"):
            rows[-1].append(int(attributes.get("colspan") or 1))
    return rows


def _full_page() -> str:
    card = Card("data:image/png;base64,AAAA", EVIL, -3.25, False, (EVIL,), kept=True)
    gap = Card("", "a red circle", None, None)
    sheet = Sheet(1, [("Highest scores", [card, gap]), ("Lowest scores", [])])
    study = StudyTable(EVIL, EVIL, [EVIL], [[EVIL]], "data:image/svg+xml;base64,AAAA")
    more = {"summary": [EVIL], "commands": EVIL, "versions": {EVIL: EVIL}, "studies": [study]}
    return render(Page(SETTINGS, [_round(1, "promoted")], [sheet], [Pair(card, gap)], "v0001", "v0002", **more))


def test_every_text_is_escaped() -> None:
    html = _full_page()
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 3
    assert not [tag for tag, _ in _parsed(html).seen if tag == "script"]


def test_the_page_stands_alone() -> None:
    for tag, attributes in _parsed(_full_page()).seen:
        assert tag not in ("link", "iframe", "script")
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "url(" not in _full_page()


def test_what_is_missing_shows_as_missing() -> None:
    html = _full_page()
    assert 'aria-label="image not available"' in html
    assert "no verdict" in html
    assert "Lowest scores" not in html


def test_what_not_every_run_measures_has_columns_where_it_is_measured() -> None:
    share = {"mean": 0.4, "low": 0.3, "high": 0.5}
    measured = _round(1, "promoted") | {
        "editing": {"parent": share, "candidate": share, "delta": share},
        "judge_drift": {"n": 256, "shift": 0.214, "auc": 0.9624, "num_failed": 0},
    }
    html = render(Page(SETTINGS, [measured, _round(2, "rejected")]))
    assert "40.0 [30.0, 50.0] → 40.0 [30.0, 50.0]" in html
    assert "+0.21, 0.962" in html
    columns = {sum(row) for row in _cells_of(html)}
    assert len(columns) == 1, "every row is as wide as the head"
    assert "editing, %" not in render(Page(SETTINGS, [_round(1, "promoted")]))


@pytest.mark.parametrize("rounds", [[], [_round(1, None, None, None)], [_round(1, None, 0.4, None)]])
def test_a_run_under_way_has_a_page(rounds: list[dict[str, Any]]) -> None:
    _parsed(render(Page(SETTINGS, rounds)))


def test_the_curve_marks_what_was_decided() -> None:
    rounds = [_round(1, "promoted"), _round(2, "rejected", 0.5, 0.45), _round(3, None, 0.5, None)]
    assert [mark.role for mark in marks(rounds)] == ["parent", "promoted", "parent", "rejected", "parent"]
    svg = ElementTree.fromstring(curve(rounds))
    assert len(svg.findall(".//circle")) == 5
    [line] = svg.findall("polyline")
    assert len(line.attrib["points"].split()) == 4, "a rejected candidate is off the line of the model in use"


@pytest.mark.parametrize("mean", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_the_curve_stays_inside_its_frame(mean: float) -> None:
    row = _round(1, "promoted", mean, mean)
    for side in ("parent", "candidate"):
        row["heldout"][side].update(low=max(0.0, mean - 0.01), high=min(1.0, mean + 0.01))
    numbers = [float(y) for y in re.findall(r'\by[12]?="(-?[\d.]+)"', curve([row]))]
    assert min(numbers) >= 0
    assert max(numbers) <= 300


def test_no_round_no_curve() -> None:
    assert curve([]) == ""


def test_understanding_has_the_interval_of_its_probes_and_diversity_none() -> None:
    row = _round(1, "promoted") | {"understanding": {"parent": 0.98, "candidate": 1.0}, "judge_auc": 0.9}
    parent, candidate = marks([row], "understanding", num_probes=100)
    expected = wilson_interval([True] * 98 + [False] * 2)
    assert (parent.mean, parent.low, parent.high) == (0.98, expected.low, expected.high)
    assert candidate.low < candidate.high == pytest.approx(1.0)
    [diversity] = marks([row], "diversity")
    assert (diversity.mean, diversity.low, diversity.high) == (0.62, 0.62, 0.62)
    assert [mark.role for mark in marks([row], "judge_auc")] == ["parent"]
    assert "<line x1" not in curve([row], "judge_auc").split("<g ")[1], "no bars where there is no interval"


def test_the_summary_says_what_the_run_came_to() -> None:
    rounds = [_round(1, "promoted"), _round(2, "rejected", 0.5, 0.45), _round(3, None, 0.5, None)]
    first, heldout, *rest = summary(rounds)
    assert first == "1 of 2 decided rounds were promoted; the version in use is v0002."
    assert "40.0 [36.0, 44.0] % for v0001" in heldout
    assert "50.0 [46.0, 54.0] % for v0002 at the gate of round 1" in heldout
    assert "3,072 samples were drawn and 903 accepted; the judge's AUC" in rest[-1]
    assert list(summary([_round(1, None, None, None)])) == []


def test_the_commands_repeat_what_differs_from_the_defaults() -> None:
    # A run's row names the domain that "auto" stood for.
    flags = {"run.seed": 3, "run.domain": "shapes", "train.from": "parent", "runtime.threads": 2}
    settings = load_settings(None, flags, environ={})
    text = commands(settings.resolved(), 5)
    assert text.startswith('# run.toml\n[run]\nseed = 3\n[train]\nfrom = "parent"\n')
    assert "--rounds 5 --config run.toml" in text
    assert "threads" not in text
    assert commands(SETTINGS, 3) == "illume-loop start --run-dir again --rounds 3\n"


def test_numbers() -> None:
    estimate = {"mean": 0.41, "low": 0.37, "high": 0.45}
    assert interval(estimate) == "41.0 [37.0, 45.0]"
    assert gain({"mean": 0.06, "low": -0.03, "high": 0.09}) == "+6.0 [-3.0, +9.0]"
    assert (interval(None), gain(None), percent(None), number(None)) == ("-",) * 4
    assert interval({"mean": 0.41, "low": None, "high": None}) == "41.0"
    assert (percent(0.93), number(0.9136)) == ("93.0", "0.914")
