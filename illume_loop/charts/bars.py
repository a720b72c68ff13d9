"""Small figures of the dashboard as inline SVG: bars of log-odds, and intervals on a common scale.

The figures take their colours from CSS classes, because the content security policy allows no inline style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

BAR_WIDTH, BAR_HEIGHT = 240, 14

MOST_LOG_ODDS = 8.0
"""The log-odds at which a bar has its full length; larger values look the same."""

SPAN_WIDTH, SPAN_ROW, SPAN_LEFT = 520, 30, 92

SPAN_STEPS = 4


def log_odds_bar(log_odds: float | None) -> Markup:
    """Draw log-odds as a bar: to the right of the middle for yes, to the left for no."""
    if log_odds is None or not math.isfinite(log_odds):
        return Markup('<span class="soft">no number</span>')
    middle = BAR_WIDTH / 2
    length = min(abs(log_odds), MOST_LOG_ODDS) / MOST_LOG_ODDS * middle
    x = middle if log_odds >= 0 else middle - length
    kind = "yes" if log_odds >= 0 else "no"
    label = f"log-odds {log_odds:+.2f}, {kind}"
    return Markup(
        f'<svg class="bar" viewBox="0 0 {BAR_WIDTH} {BAR_HEIGHT}" role="img" aria-label="{label}">'
        f'<rect class="track" x="0" y="5" width="{BAR_WIDTH}" height="4" rx="2"/>'
        f'<rect class="{kind}" x="{x:.1f}" y="1" width="{length:.1f}" height="12" rx="2"/>'
        f'<line class="zero" x1="{middle}" x2="{middle}" y1="0" y2="{BAR_HEIGHT}"/></svg>'
    )


def spans(rows: Sequence[tuple[str, Mapping[str, Any] | None, str]], unit: str) -> Markup:
    """Draw estimates with their intervals on one scale, one per row; each is (name, {"mean", "low", "high"}, class).

    The means and ends are shares of 1, drawn in percent. A line marks zero if the scale contains it. The figure is
    empty if no row has an estimate.
    """
    given = [(name, told, kind) for name, told, kind in rows if told and told.get("mean") is not None]
    if not given:
        return Markup("")
    ends = [100 * told[key] for _, told, _ in given for key in ("low", "mean", "high") if told.get(key) is not None]
    low, step = _scale(min(ends), max(ends))
    high = low + SPAN_STEPS * step
    width = SPAN_WIDTH - SPAN_LEFT - 16

    def x(value: float) -> float:
        return float(SPAN_LEFT + (100 * value - low) / (high - low) * width)

    height = SPAN_ROW * len(given) + 26
    label = escape("; ".join(f"{name} {_told(told)} {unit}" for name, told, _ in given))
    parts = [f'<svg class="spans" viewBox="0 0 {SPAN_WIDTH} {height}" role="img" aria-label="{label}">']
    for number in range(SPAN_STEPS + 1):
        value = low + number * step
        place = f"{x(value / 100):.1f}"
        parts.append(f'<line class="grid" x1="{place}" x2="{place}" y1="0" y2="{height - 20}"/>')
        parts.append(f'<text class="tick" x="{place}" y="{height - 4}" text-anchor="middle">{value:g}</text>')
    if low < 0 < high:
        parts.append(f'<line class="zero" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{height - 20}"/>')
    for row, (name, told, kind) in enumerate(given):
        y = SPAN_ROW * row + SPAN_ROW / 2
        parts.append(f'<text class="name" x="0" y="{y + 4}">{escape(name)}</text><g class="span {escape(kind)}">')
        if told.get("low") is not None:
            parts.append(f'<line x1="{x(told["low"]):.1f}" x2="{x(told["high"]):.1f}" y1="{y}" y2="{y}"/>')
        parts.append(f'<circle cx="{x(told["mean"]):.1f}" cy="{y}" r="5"/></g>')
    return Markup("".join([*parts, "</svg>"]))


def _scale(least: float, most: float) -> tuple[float, float]:
    """Return (low end, step) of the finest scale of SPAN_STEPS round steps that contains both ends, in -100..100."""
    for step in (1.0, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 25.0):
        low = math.floor(least / step) * step
        if low + SPAN_STEPS * step >= most:
            return low, step
    return -100.0 if least < 0 else 0.0, 50.0 if least < 0 else 25.0


def _told(estimate: Mapping[str, Any]) -> str:
    low, high = estimate.get("low"), estimate.get("high")
    span = "" if low is None or high is None else f" from {100 * low:.1f} to {100 * high:.1f}"
    return f"{100 * estimate['mean']:.1f}{span}"
