"""What workers of a training on Ray tell its driver, in an actor between them, whose process has to import little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from illume_loop.train.keeping import KeptCheckpoint

Event = tuple[str, Any]
"""("step", (done, total)), ("saved", (step, folder)), ("done", a report as a dict) or ("failed", IllumeLoopError)."""


class Ledger:
    """An actor between the driver, which alone knows the database, and the workers, which come and go."""

    def __init__(self, kept: Sequence[KeptCheckpoint]) -> None:
        self.kept = list(kept)
        self.events: list[Event] = []

    def tell(self, *event: Any) -> None:
        """Something for the driver to hear."""
        self.events.append((event[0], event[1]))

    def take(self) -> list[Event]:
        """What was told since the last time."""
        events, self.events = self.events, []
        return events

    def registered(self, checkpoint: KeptCheckpoint) -> None:
        """The database has one more."""
        self.kept.insert(0, checkpoint)

    def kept_checkpoints(self) -> list[KeptCheckpoint]:
        """The registered ones, the newest first."""
        return self.kept
