"""A forest plot of estimates as one SVG: a line for each label, a panel for each measure.

The large dot is the mean over seeds; the small dots are the seeds. The thick line is the interval over draws. The thin
line is the interval over seeds; it is cut at the panel's edge, because with few seeds it can be very long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from illume_loop.evals.statistics import SeedsEstimate

LABELS, PANEL, GAP = 170, 190, 24
TOP, BOTTOM, LINE = 64, 30, 26
COLORS = ("#3366aa", "#b5541c", "#2f7d4f", "#8a4a9e", "#8c7a00", "#4a8a99", "#a33a4a", "#666666")
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#222}.title{font-weight:600;font-size:14px}.head{font-weight:600}"
    ".tick{fill:#666;font-size:11px}.grid{stroke:#ddd}.zero{stroke:#888;stroke-dasharray:3 3}"
)


@dataclass(frozen=True, slots=True)
class Panel:
    """The panel of one measure: its heading, the estimate of each line, and the value that means no change, if any."""

    heading: str
    estimates: Sequence[SeedsEstimate | None]
    neutral: float | None
    factor: float = 100.0

    def shown(self) -> list[float]:
        """Return the values that the panel's range must include."""
        found = [estimate for estimate in self.estimates if estimate is not None]
        values = [value for estimate in found for value in (*estimate.by_seed, *(estimate.draws or ()))]
        return [self.factor * value for value in values] + ([] if self.neutral is None else [self.neutral])


def forest_plot(title: str, labels: Sequence[str], colors: Sequence[str], panels: Sequence[Panel]) -> str:
    """Return the plot as SVG text; each line has a label and a colour."""
    width = LABELS + len(panels) * (PANEL + GAP)
    height = TOP + LINE * len(labels) + BOTTOM
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text class="title" x="8" y="22">{escape(title)}</text>',
    ]
    for index, label in enumerate(labels):
        body.append(f'<text x="8" y="{_y(index) + 4:.1f}">{escape(label)}</text>')
    for number, panel in enumerate(panels):
        body += _drawn(panel, LABELS + number * (PANEL + GAP), colors)
    return "\n".join([*body, "</svg>"]) + "\n"


def _drawn(panel: Panel, left: float, colors: Sequence[str]) -> Iterator[str]:
    values = panel.shown()
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    padding = 0.08 * (high - low) or 0.05 * panel.factor
    low, high = low - padding, high + padding

    def x(value: float) -> float:
        return left + PANEL * (min(max(value, low), high) - low) / (high - low)

    bottom = _y(len(colors)) - LINE / 2
    yield f'<text class="head" x="{left}" y="{TOP - 16}">{escape(panel.heading)}</text>'
    for value in _ticks(low, high):
        yield f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{TOP - 6}" y2="{bottom:.1f}"/>'
        yield f'<text class="tick" x="{x(value):.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{value:g}</text>'
    if panel.neutral is not None:
        at = x(panel.neutral)
        yield f'<line class="zero" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP - 6}" y2="{bottom:.1f}"/>'
    for index, estimate in enumerate(panel.estimates):
        if estimate is not None:
            yield from _mark(estimate, panel.factor, x, _y(index), colors[index])


def _mark(estimate: SeedsEstimate, factor: float, x: Callable[[float], float], y: float, color: str) -> Iterator[str]:
    yield f'<g stroke="{color}" fill="{color}">'
    for interval, thickness in ((estimate.seeds, 1), (estimate.draws, 4)):
        if interval is not None:
            first, last = (x(factor * value) for value in interval)
            yield f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{y:.1f}" y2="{y:.1f}" stroke-width="{thickness}"/>'
    for value in estimate.by_seed:
        yield f'<circle cx="{x(factor * value):.1f}" cy="{y + 7:.1f}" r="1.8" stroke="none"/>'
    yield f'<circle cx="{x(factor * estimate.mean):.1f}" cy="{y:.1f}" r="4.5" stroke="#fff"/></g>'


def _ticks(low: float, high: float) -> list[float]:
    """Return two to six round values within the range."""
    step = 10.0**-6
    factors = (2.0, 2.5, 2.0)
    index = 0
    while (high - low) / step > 5:
        step *= factors[index % 3]
        index += 1
    first = int(-(-low // step))
    return [round(step * k, 9) for k in range(first, int(high // step) + 1)]


def _y(index: int) -> float:
    return TOP + LINE * (index + 0.5)
