"""The counts of rows read, kept and left out, and the file that lists the rows that were left out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from illume_loop.data.fields import BadRow
from illume_loop.data.rows import Place
from illume_loop.files import storable, write_atomically

CROPPED = "cropped too much"
"""The one reason that is the operator's choice (`--max-crop`). Such rows do not count as bad."""


@dataclass(slots=True)
class Tally:
    """Counts of rows. `kept` is by kind, `left_out` by reason."""

    num_read: int = 0
    num_read_only: int = 0
    """Pairs that are only read, because squaring their image would crop too much for drawing it."""
    kept: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def num_kept(self) -> int:
        """The number of rows that were kept."""
        return self.kept.total()

    @property
    def num_bad(self) -> int:
        """The number of rows that were left out for a fault of their own."""
        return self.left_out.total() - self.left_out[CROPPED]

    @property
    def bad_share(self) -> float:
        """The share of bad rows among the rows read; 0 if none was read."""
        return self.num_bad / self.num_read if self.num_read else 0.0

    @property
    def worst(self) -> str:
        """The most frequent fault; "none" if there is none."""
        return next((reason for reason, _ in self.left_out.most_common() if reason != CROPPED), "none")

    def add(self, other: Tally) -> None:
        """Add another tally's counts."""
        self.num_read += other.num_read
        self.num_read_only += other.num_read_only
        self.kept += other.kept
        self.left_out += other.left_out

    def content(self) -> dict[str, Any]:
        """Return the tally as plain values for JSON."""
        return asdict(self) | {"kept": dict(self.kept), "left_out": dict(self.left_out)}

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> Self:
        """Return the tally that `content` made plain."""
        counted = {name: Counter(content[name]) for name in ("kept", "left_out")}
        return cls(int(content["num_read"]), int(content["num_read_only"]), **counted)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that was left out, and the reason."""

    place: Place
    problem: BadRow

    def line(self) -> str:
        """Return the row's place and reason as one line of JSON."""
        told = {"file": self.place.file, "index": self.place.index, "key": self.place.key}
        told |= {"reason": self.problem.reason, "detail": self.problem.detail}
        return storable(json.dumps(told, ensure_ascii=False))


def write_list(path: Path, rows: Iterable[LeftOut]) -> None:
    """List rows in a file of JSON lines."""
    write_atomically(path, "".join(f"{row.line()}\n" for row in rows).encode())
