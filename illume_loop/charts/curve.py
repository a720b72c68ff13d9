"""The curves of a run's measures over its rounds, for parent and candidate, as inline SVG and as strokes.

Colours come from CSS variables of the page, so a curve follows the page's light or dark theme.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from illume_loop.charts.strokes import Dashes, Dot, Line, Marked, Stroke, Words
from illume_loop.evals.statistics import wilson_interval

WIDTH, HEIGHT = 720, 300

LEFT, RIGHT, TOP, BOTTOM = 52, 16, 16, 40

OFFSET = 14
"""Pixels by which the parent's and the candidate's marks are shifted from the middle of their round."""

MEASURES: Mapping[str, str] = {
    "heldout": "Held-out alignment of parent and candidate by round, in percent, with intervals",
    "understanding": "Understanding of parent and candidate by round, in percent, with intervals",
    "diversity": "Diversity of parent and candidate by round, in percent of the largest possible",
    "judge_auc": "How well the judge's scores tell right images from wrong ones (AUC by round, in percent)",
}
"""The measures that have a curve, with the curve's title. All are shares of 1."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One estimate of a round: shares of 1. Without an interval, `low` and `high` equal the mean."""

    round_index: int
    role: str  # "parent", "promoted" or "rejected"
    model: str
    mean: float
    low: float
    high: float


def marks(rounds: Sequence[Mapping[str, Any]], measure: str = "heldout", num_probes: int = 0) -> list[Mark]:
    """Return the marks of all measured rounds; `rounds` are rows of `rounds ls`.

    `num_probes` is the number of forced choices behind the share of understanding; with 0 it has no interval.
    """
    found: list[Mark] = []
    for row in rounds:
        promoted = "promoted" if row.get("decision") == "promoted" else "rejected"
        for side in ("parent", "candidate"):
            estimate = _estimate(row, measure, side, num_probes)
            if estimate is not None:
                role = side if side == "parent" else promoted
                found.append(Mark(row["index"], role, str(row.get(side) or side), *estimate))
    return found


def _estimate(row: Mapping[str, Any], measure: str, side: str, num_probes: int) -> tuple[float, float, float] | None:
    value = row.get(measure)
    if measure == "judge_auc":
        # The value belongs to the parent, which drew and judged the round's samples.
        return (value, value, value) if value is not None and side == "parent" else None
    value = (value or {}).get(side)
    if isinstance(value, Mapping):
        return None if value.get("mean") is None else (value["mean"], value["low"], value["high"])
    if value is None:
        return None
    if measure == "understanding" and num_probes:
        num_right = round(value * num_probes)
        interval = wilson_interval([True] * num_right + [False] * (num_probes - num_right))
        return value, interval.low, interval.high
    return value, value, value


def curve(rounds: Sequence[Mapping[str, Any]], measure: str = "heldout", num_probes: int = 0) -> Markup:
    """Return the curve of a measure as an SVG element; empty if nothing is measured yet."""
    found = strokes(marks(rounds, measure, num_probes))
    if not found:
        return Markup("")
    label = escape(MEASURES[measure])
    opening = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" class="curve">'
    return Markup(opening + "".join(stroke.svg() for stroke in found) + "</svg>")


def strokes(points: Sequence[Mark]) -> list[Stroke]:
    """Return the plot of the marks, WIDTH by HEIGHT pixels; an empty list without marks."""
    if not points:
        return []
    scale = _Scale(points)
    return [*_grid(scale), *_path(points, scale), *(_drawn(mark, scale) for mark in points)]


class _Scale:
    """The map from rounds and shares to pixels; the y range covers all intervals, rounded out to tens of percent."""

    def __init__(self, points: Sequence[Mark]) -> None:
        self.rounds = sorted({mark.round_index for mark in points})
        self.low = max(0, int(min(mark.low for mark in points) * 10)) * 10
        self.high = min(100, (int(max(mark.high for mark in points) * 10 - 1e-9) + 1) * 10)
        if self.high <= self.low:
            self.low, self.high = (self.low, self.low + 10) if self.low < 100 else (90, 100)

    def x(self, round_index: int, role: str = "") -> float:
        slot = (WIDTH - LEFT - RIGHT) / len(self.rounds)
        shift = 0 if not role else -OFFSET if role == "parent" else OFFSET
        return LEFT + slot * (self.rounds.index(round_index) + 0.5) + shift

    def y(self, share: float) -> float:
        part = (100 * share - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _grid(scale: _Scale) -> Iterator[Stroke]:
    step = 10 if scale.high - scale.low > 20 else 5
    for percent in range(scale.low, scale.high + 1, step):
        y = scale.y(percent / 100)
        yield Line(LEFT, y, WIDTH - RIGHT, y, "grid")
        yield Words(LEFT - 8, y + 4, f"{percent} %", "end")
    for index in scale.rounds:
        yield Words(scale.x(index), HEIGHT - 14, f"round {index}", "middle")


def _path(points: Sequence[Mark], scale: _Scale) -> Iterator[Stroke]:
    """Yield a line through the model in use: each round's parent, and its candidate if that was promoted."""
    used = [mark for mark in points if mark.role != "rejected"]
    yield Dashes([(scale.x(mark.round_index, mark.role), scale.y(mark.mean)) for mark in used], "used")


def _drawn(mark: Mark, scale: _Scale) -> Stroke:
    x, y = scale.x(mark.round_index, mark.role), scale.y(mark.mean)
    low, high = scale.y(mark.low), scale.y(mark.high)
    title = f"round {mark.round_index}, {mark.role} {mark.model}: {100 * mark.mean:.1f} %"
    if mark.low == mark.high:
        return Marked(mark.role, title, [Dot(x, y)])
    span = f"[{100 * mark.low:.1f}, {100 * mark.high:.1f}]"
    ends = [Line(x - 5, end, x + 5, end) for end in (low, high)]
    return Marked(mark.role, f"{title} {span}", [Line(x, low, x, high), *ends, Dot(x, y)])
