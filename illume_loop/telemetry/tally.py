"""The counts of what this process has done since it started; collectors.py shows them to Prometheus.

Counting is always on. It costs a lock and an addition, and needs no package.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock


@dataclass(slots=True)
class Counts:
    """Attempts at units by (kind, outcome), seconds and items by kind, and draws. Outcomes: done, failed, lost."""

    attempts: Counter[tuple[str, str]] = field(default_factory=Counter)
    seconds: Counter[str] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)
    images: int = 0
    tokens: int = 0


class Tally:
    """Counts that several threads may add to and read."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts = Counts()

    def attempted(self, kind: str, outcome: str, seconds: float, items: int) -> None:
        """Count an attempt at a unit that is over. Its items count only if it is done."""
        with self._lock:
            self._counts.attempts[kind, outcome] += 1
            # A Counter can hold floats; only its annotation says that values are whole.
            self._counts.seconds[kind] += seconds  # type: ignore[assignment]
            if outcome == "done":
                self._counts.items[kind] += items

    def drew(self, images: int, tokens: int) -> None:
        """Count drawn images, and the number of tokens of all of them."""
        with self._lock:
            self._counts.images += images
            self._counts.tokens += tokens

    def counts(self) -> Counts:
        """Return a copy of the counts."""
        with self._lock:
            now = self._counts
            return Counts(
                Counter(now.attempts), Counter(now.seconds), Counter(now.items), images=now.images, tokens=now.tokens
            )


TALLY = Tally()
"""The tally of this process."""
