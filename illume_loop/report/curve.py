"""The one curve of the page: held-out alignment of parent and candidate over the rounds, as inline SVG.

Colours come from CSS variables of the page, so the curve follows light and dark.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 16, 40
OFFSET = 14
"""Pixels between the parent's and the candidate's mark of one round."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One estimate: shares of 1 on the y axis, the round on the x axis."""

    round_index: int
    role: str  # "parent", "promoted" or "rejected"
    model: str
    mean: float
    low: float
    high: float


def marks(rounds: Sequence[Mapping[str, Any]]) -> list[Mark]:
    """The marks of the rounds that have been evaluated, from `rounds ls` rows."""
    found: list[Mark] = []
    for row in rounds:
        for side in ("parent", "candidate"):
            estimate = (row.get("heldout") or {}).get(side)
            if estimate and estimate.get("mean") is not None:
                promoted = "promoted" if row.get("decision") == "promoted" else "rejected"
                role = side if side == "parent" else promoted
                name = str(row.get(side) or side)
                found.append(Mark(row["index"], role, name, estimate["mean"], estimate["low"], estimate["high"]))
    return found


def curve(rounds: Sequence[Mapping[str, Any]]) -> Markup:
    """The SVG element; empty where no round has been evaluated yet."""
    points = marks(rounds)
    if not points:
        return Markup("")
    scale = _Scale(points)
    body = [*_grid(scale), *_path(points, scale)]
    for mark in points:
        body.extend(_drawn(mark, scale))
    label = "Held-out alignment of parent and candidate by round, in percent, with intervals"
    opening = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" class="curve">'
    return Markup(opening + "".join(body) + "</svg>")


class _Scale:
    """From rounds and shares to pixels; the y range covers every interval, rounded out to tens of percent."""

    def __init__(self, points: Sequence[Mark]) -> None:
        self.rounds = sorted({mark.round_index for mark in points})
        self.low = max(0, int(min(mark.low for mark in points) * 10)) * 10
        self.high = min(100, (int(max(mark.high for mark in points) * 10 - 1e-9) + 1) * 10)
        if self.high <= self.low:
            self.high = self.low + 10

    def x(self, round_index: int, role: str = "") -> float:
        slot = (WIDTH - LEFT - RIGHT) / len(self.rounds)
        shift = 0 if not role else -OFFSET if role == "parent" else OFFSET
        return LEFT + slot * (self.rounds.index(round_index) + 0.5) + shift

    def y(self, share: float) -> float:
        part = (100 * share - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)


def _grid(scale: _Scale) -> Iterator[str]:
    step = 10 if scale.high - scale.low > 20 else 5
    for percent in range(scale.low, scale.high + 1, step):
        y = scale.y(percent / 100)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{percent} %</text>'
    for index in scale.rounds:
        yield f'<text class="tick" x="{scale.x(index):.1f}" y="{HEIGHT - 14}" text-anchor="middle">round {index}</text>'


def _path(points: Sequence[Mark], scale: _Scale) -> Iterator[str]:
    """A line through the model in use: each round's parent, then its candidate where it was promoted."""
    used = [mark for mark in points if mark.role != "rejected"]
    line = " ".join(f"{scale.x(mark.round_index, mark.role):.1f},{scale.y(mark.mean):.1f}" for mark in used)
    yield f'<polyline class="used" points="{line}"/>'


def _drawn(mark: Mark, scale: _Scale) -> Iterator[str]:
    x, y = scale.x(mark.round_index, mark.role), scale.y(mark.mean)
    low, high = scale.y(mark.low), scale.y(mark.high)
    title = f"round {mark.round_index}, {mark.role} {mark.model}: {100 * mark.mean:.1f} %"
    span = f"[{100 * mark.low:.1f}, {100 * mark.high:.1f}]"
    yield f'<g class="mark {mark.role}"><title>{escape(title)} {span}</title>'
    yield f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>'
    for end in (low, high):
        yield f'<line x1="{x - 5:.1f}" x2="{x + 5:.1f}" y1="{end:.1f}" y2="{end:.1f}"/>'
    yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5.5"/></g>'
