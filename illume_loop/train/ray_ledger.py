"""The actor through which Ray workers report to their driver. Its process imports little."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from illume_loop.train.keeping import KeptCheckpoint

Event = tuple[str, Any]
"""("step", (done, total)), ("saved", (step, folder)), ("done", a report as a dict) or ("failed", IllumeLoopError)."""


class Ledger:
    """An actor between the driver, which alone uses the database, and the workers, which may be restarted."""

    def __init__(self, kept: Sequence[KeptCheckpoint]) -> None:
        self.kept = list(kept)
        self.events: list[Event] = []

    def tell(self, *event: Any) -> None:
        """Record an event for the driver."""
        self.events.append((event[0], event[1]))

    def take(self) -> list[Event]:
        """Return the events since the last call."""
        events, self.events = self.events, []
        return events

    def registered(self, checkpoint: KeptCheckpoint) -> None:
        """Add a checkpoint that the driver has registered in the database."""
        self.kept.insert(0, checkpoint)

    def kept_checkpoints(self) -> list[KeptCheckpoint]:
        """Return the registered checkpoints, the newest first."""
        return self.kept
