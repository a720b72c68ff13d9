"""Curves of the measures of reinforcement learning over the updates of a round, as inline SVG.

Colours come from CSS variables of the page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 150

LEFT, RIGHT, TOP, BOTTOM = 52, 10, 12, 28

Points = Sequence[tuple[int, float]]
"""The values of a measure by update, in order."""


def update_trends(updates: Sequence[Mapping[str, Any]]) -> list[tuple[str, Markup]]:
    """Return (title, curve) of each measure that the updates have; `updates` are those of `updates_table`."""
    return [(title, trend(points, title)) for title, points in _measures(updates) if points]


def _measures(updates: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Points]]:
    for scorer in sorted({name for update in updates for name in update["rewards"]}):
        yield f"Mean reward by {scorer}", _known(updates, [update["rewards"].get(scorer) for update in updates])
    right = [_percent(update["checked"], 1) for update in updates]
    yield "Drawn right by the checker, %", _known(updates, right)
    alike = [_percent(update["num_without_variance"], update["num_groups"]) for update in updates]
    yield "Groups whose rewards are all equal, %", _known(updates, alike)
    yield "Entropy, nats per image token", _known(updates, [update["entropy"] for update in updates])
    yield "KL to the base, nats per image token", _known(updates, [update["kl"] for update in updates])


def _known(updates: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> Points:
    pairs = zip(updates, values, strict=True)
    return [(int(update["index"]), float(value)) for update, value in pairs if value is not None]


def _percent(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else 100 * part / whole


def trend(points: Points, title: str) -> Markup:
    """Return the curve of at least one point as an SVG element."""
    least, most = min(value for _, value in points), max(value for _, value in points)
    margin = (most - least) * 0.05 or abs(most) * 0.05 or 1.0
    low, high = least - margin, most + margin
    first, last = points[0][0], points[-1][0]

    def x(index: int) -> float:
        return LEFT + (index - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    label = escape(f"{title}: {points[0][1]:.3g} in update {first}, {points[-1][1]:.3g} in update {last}")
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}" class="curve">']
    for value in sorted({least, most}):
        place = y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{place:.1f}" y2="{place:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{place + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for index, anchor in {first: "start", last: "end"}.items():
        told = f"update {index}"
        parts.append(f'<text class="tick" x="{x(index):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{told}</text>')
    line = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in points)
    parts.append(f'<polyline class="trend" points="{line}"/>')
    parts.append(f'<circle class="trend" cx="{x(last):.1f}" cy="{y(points[-1][1]):.1f}" r="3.5"/></svg>')
    return Markup("".join(parts))
