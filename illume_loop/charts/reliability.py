"""The reliability plot of a calibration: predicted probability against the share that is right, bin by bin.

The plot is one SVG file without references to other files; its colours follow the light or dark theme.
"""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import escape

from illume_loop.evals.reliability import Bin, Reliability

SIZE, LEFT, TOP, BOTTOM = 360, 56, 44, 56

WIDTH, HEIGHT = LEFT + SIZE + 24, TOP + SIZE + BOTTOM

LEAST_RADIUS, MOST_RADIUS = 3.0, 12.0

STYLE = (
    "svg{color:#1f2328;background:#fff;font:12px system-ui,sans-serif}text{fill:currentColor}"
    "line,circle{stroke:currentColor}.grid{opacity:.15}.ideal{opacity:.5;stroke-dasharray:4 4}"
    ".bin line{stroke:#3b6fb6;stroke-width:2}.bin circle{fill:#3b6fb6;stroke:none}"
    "@media(prefers-color-scheme:dark){svg{color:#e6edf3;background:#0d1117}}"
)


def reliability_plot(found: Reliability, title: str) -> str:
    """Return the SVG document. A mark's area grows with the items of its bin; its line is the 95 % interval."""
    shown_auc = "-" if found.auc is None else f"{found.auc:.3f}"
    head = f"{title}: n {found.n}, AUC {shown_auc}, Brier {found.brier:.3f}, ECE {found.ece:.3f}"
    body = [*_frame(head), *(line for part in found.bins for line in _mark(part, found.n))]
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([opening, f"<title>{escape(head)}</title>", f"<style>{STYLE}</style>", *body, "</svg>"]) + "\n"


def _x(share: float) -> float:
    return LEFT + share * SIZE


def _y(share: float) -> float:
    return TOP + (1 - share) * SIZE


def _frame(head: str) -> Iterator[str]:
    yield f'<text x="{LEFT}" y="{TOP - 20}">{escape(head)}</text>'
    for tenth in range(0, 11, 2):
        share = tenth / 10
        x, y = f"{_x(share):.1f}", f"{_y(share):.1f}"
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{TOP + SIZE}"/>'
        yield f'<line class="grid" x1="{LEFT}" x2="{LEFT + SIZE}" y1="{y}" y2="{y}"/>'
        yield f'<text x="{x}" y="{TOP + SIZE + 18}" text-anchor="middle">{share:.1f}</text>'
        yield f'<text x="{LEFT - 8}" y="{_y(share) + 4:.1f}" text-anchor="end">{share:.1f}</text>'
    yield f'<line class="ideal" x1="{_x(0)}" y1="{_y(0)}" x2="{_x(1)}" y2="{_y(1)}"/>'
    yield f'<text x="{_x(0.5)}" y="{HEIGHT - 14}" text-anchor="middle">predicted probability</text>'
    place = f'transform="translate(16 {_y(0.5)}) rotate(-90)"'
    yield f'<text {place} text-anchor="middle">share that is right</text>'


def _mark(part: Bin, num_items: int) -> Iterator[str]:
    x = f"{_x(part.said):.1f}"
    radius = max(LEAST_RADIUS, MOST_RADIUS * (part.true.n / num_items) ** 0.5)
    said = (
        f"{part.low:.1f} to {part.high:.1f}: {part.true.n} items, predicted {part.said:.2f}, right {part.true.mean:.2f}"
    )
    yield f'<g class="bin"><title>{said}</title>'
    yield f'<line x1="{x}" x2="{x}" y1="{_y(part.true.low):.1f}" y2="{_y(part.true.high):.1f}"/>'
    yield f'<circle cx="{x}" cy="{_y(part.true.mean):.1f}" r="{radius:.1f}"/></g>'
