"""The elements of a plot (lines, dots, words), and their output as SVG or PNG.

A PNG is for mails and slides: white background, twice the size. A `look` names a colour: a CSS class of the page in
SVG, and a key of `COLOURS` in PNG.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import hypot

from markupsafe import escape
from PIL import Image, ImageDraw, ImageFont


@dataclass(frozen=True, slots=True)
class Line:
    """A line from (x1, y1) to (x2, y2)."""

    x1: float
    y1: float
    x2: float
    y2: float
    look: str = ""

    def svg(self) -> str:
        """Return the element; a line without a look takes that of its group."""
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
        """Return the element."""
        place = f'x="{self.x:.1f}" y="{self.y:.1f}" text-anchor="{self.anchor}"'
        return f'<text class="tick" {place}>{escape(self.text)}</text>'


@dataclass(frozen=True, slots=True)
class Dashes:
    """A dashed line through points."""

    points: Sequence[tuple[float, float]]
    look: str

    def svg(self) -> str:
        """Return the element."""
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)
        return f'<polyline class="{self.look}" points="{line}"/>'


@dataclass(frozen=True, slots=True)
class Dot:
    """A circle of radius 5.5 around (x, y); it takes the look of its group."""

    x: float
    y: float

    def svg(self) -> str:
        """Return the element."""
        return f'<circle cx="{self.x:.1f}" cy="{self.y:.1f}" r="5.5"/>'


@dataclass(frozen=True, slots=True)
class Marked:
    """A group of lines and a dot; the page shows its title when the pointer is over it."""

    look: str
    title: str
    parts: Sequence[Line | Dot]

    def svg(self) -> str:
        """Return the element."""
        inside = "".join(part.svg() for part in self.parts)
        return f'<g class="mark {self.look}"><title>{escape(self.title)}</title>{inside}</g>'


Stroke = Line | Words | Dashes | Marked

SCALE, SMOOTHING = 2, 2

HEAD = 56
"""Pixels above the plot for its title and its legend."""

LEGEND = {"parent": "parent", "promoted": "candidate, promoted", "rejected": "candidate, rejected"}

DASH = 4.0

PAPER, INK = "#ffffff", "#1d1d1f"

COLOURS = {
    "grid": "#dedbd4",
    "tick": "#66666e",
    "used": "#9aa0a8",
    "parent": "#6b7280",
    "promoted": "#0b7a4b",
    "rejected": "#b3341f",
}

HOLLOW = "rejected"

ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(strokes: Sequence[Stroke], title: str, width: int, height: int) -> bytes:
    """Return a plot as a PNG, with title and legend above it. The same strokes give the same bytes."""
    painter = _Painter(width, height + HEAD)
    painter.words(Words(16, 22 - HEAD, title, "start"), INK, 15)
    for place, (look, told) in enumerate(LEGEND.items()):
        x = 22 + 150 * place
        painter.stroke(Marked(look, "", [Dot(x, 40 - HEAD)]))
        painter.stroke(Words(x + 12, 44 - HEAD, told, "start"))
    for stroke in strokes:
        painter.stroke(stroke)
    buffer = io.BytesIO()
    painter.finished().save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


class _Painter:
    """A canvas of SMOOTHING times the final size; shrinking it smooths Pillow's hard-edged lines."""

    def __init__(self, width: int, height: int) -> None:
        self._unit = SCALE * SMOOTHING
        self._image = Image.new("RGB", (width * self._unit, height * self._unit), PAPER)
        self._draw = ImageDraw.Draw(self._image)
        self._kept = (width * SCALE, height * SCALE)

    def finished(self) -> Image.Image:
        return self._image.resize(self._kept, Image.Resampling.LANCZOS)

    def stroke(self, stroke: Stroke) -> None:
        match stroke:
            case Line():
                self._line((stroke.x1, stroke.y1), (stroke.x2, stroke.y2), COLOURS[stroke.look], 1)
            case Words():
                self.words(stroke, COLOURS["tick"], 12)
            case Dashes():
                for start, stop in zip(stroke.points, stroke.points[1:], strict=False):
                    for one, two in _dashes(start, stop):
                        self._line(one, two, COLOURS[stroke.look], 1.5)
            case Marked():
                self._marked(stroke)

    def words(self, words: Words, colour: str, size: int) -> None:
        font = ImageFont.load_default(size * self._unit)
        self._draw.text(self._at(words.x, words.y), words.text, colour, font, ANCHORS[words.anchor])

    def _marked(self, marked: Marked) -> None:
        colour = COLOURS[marked.look]
        for part in marked.parts:
            if isinstance(part, Dot):
                left, top = self._at(part.x - 5.5, part.y - 5.5)
                right, bottom = self._at(part.x + 5.5, part.y + 5.5)
                inside = PAPER if marked.look == HOLLOW else colour
                self._draw.ellipse((left, top, right, bottom), inside, colour, 2 * self._unit)
            else:
                self._line((part.x1, part.y1), (part.x2, part.y2), colour, 2)

    def _line(self, start: tuple[float, float], stop: tuple[float, float], colour: str, width: float) -> None:
        self._draw.line((self._at(*start), self._at(*stop)), colour, round(width * self._unit))

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return x * self._unit, (y + HEAD) * self._unit


def _dashes(start: tuple[float, float], stop: tuple[float, float]) -> Iterator[tuple[tuple[float, float], ...]]:
    length = hypot(stop[0] - start[0], stop[1] - start[1])
    along = 0.0
    while along < length:
        parts = [min(place, length) / length for place in (along, along + DASH)]
        yield tuple((start[0] + p * (stop[0] - start[0]), start[1] + p * (stop[1] - start[1])) for p in parts)
        along += 2 * DASH
