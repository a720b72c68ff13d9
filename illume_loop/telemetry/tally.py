"""What this process has done since it started, counted where it is done; collectors.py shows it to Prometheus.

Counting costs a lock and an addition, and needs no package: it goes on whether anyone looks or not.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from threading import Lock


@dataclass(slots=True)
class Counts:
    """Attempts at units by (kind, outcome: done, failed, lost or raised), seconds and items by kind, and draws."""

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
        """An attempt at a unit is over; its items count where it is done."""
        with self._lock:
            self._counts.attempts[kind, outcome] += 1
            # Counters hold what is added to them; only their annotation says that it is whole.
            self._counts.seconds[kind] += seconds  # type: ignore[assignment]
            if outcome == "done":
                self._counts.items[kind] += items

    def drew(self, images: int, tokens: int) -> None:
        """Images were drawn, of so many tokens in all."""
        with self._lock:
            self._counts.images += images
            self._counts.tokens += tokens

    def counts(self) -> Counts:
        """A copy of the counts."""
        with self._lock:
            now = self._counts
            return Counts(
                Counter(now.attempts), Counter(now.seconds), Counter(now.items), images=now.images, tokens=now.tokens
            )


TALLY = Tally()
"""That of this process."""
