"""What a plot is made of: lines, dots and words in pixels, to be written as SVG (here) or painted as PNG (painting.py).

A look is the name of a colour: a class of the page's style in SVG, one of `painting.COLOURS` in PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape


@dataclass(frozen=True, slots=True)
class Line:
    """From (x1, y1) to (x2, y2)."""

    x1: float
    y1: float
    x2: float
    y2: float
    look: str = ""

    def svg(self) -> str:
        """The element; without a look, that of the group around it."""
        own = f'class="{self.look}" ' if self.look else ""
        return f'<line {own}x1="{self.x1:.1f}" x2="{self.x2:.1f}" y1="{self.y1:.1f}" y2="{self.y2:.1f}"/>'


@dataclass(frozen=True, slots=True)
class Words:
    """A text whose baseline is at y; `anchor` is its "start", "middle" or "end" at x."""

    x: float
    y: float
    text: str
    anchor: str

    def svg(self) -> str:
        """The element."""
        place = f'x="{self.x:.1f}" y="{self.y:.1f}" text-anchor="{self.anchor}"'
        return f'<text class="tick" {place}>{escape(self.text)}</text>'


@dataclass(frozen=True, slots=True)
class Dashes:
    """A dashed line through points."""

    points: Sequence[tuple[float, float]]
    look: str

    def svg(self) -> str:
        """The element."""
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        return f'<polyline class="{self.look}" points="{line}"/>'


@dataclass(frozen=True, slots=True)
class Dot:
    """A circle of radius 5.5 around (x, y); its look is that of the group around it."""

    x: float
    y: float

    def svg(self) -> str:
        """The element."""
        return f'<circle cx="{self.x:.1f}" cy="{self.y:.1f}" r="5.5"/>'


@dataclass(frozen=True, slots=True)
class Marked:
    """Lines and a dot that belong together, and what is said of them where one points at them."""

    look: str
    title: str
    parts: Sequence[Line | Dot]

    def svg(self) -> str:
        """The element."""
        inside = "".join(part.svg() for part in self.parts)
        return f'<g class="mark {self.look}"><title>{escape(self.title)}</title>{inside}</g>'


Stroke = Line | Words | Dashes | Marked
