"""The inline executor: this process does every unit, one after the other. No server, no other process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

from db.queries.progress import UnitRow
from illume_loop.loop.executor import perform
from illume_loop.loop.workbench import Workbench


class InlineExecutor:
    """Does the first unit that it is issued and returns, so that what has become more urgent comes next."""

    def __init__(self, bench: Workbench, on_items: Callable[[UnitRow, int, int], None]) -> None:
        """`on_items` hears (unit, items done, items in all) while a long unit goes on."""
        self._bench = bench
        self._on_items = on_items
        self._owner = f"{socket.gethostname()}:{os.getpid()}"

    def issue(self, units: Sequence[UnitRow]) -> None:
        """Do `units[0]`; see `Executor.issue`."""
        unit = units[0]
        max_attempts = self._bench.settings.runtime.max_attempts
        perform(self._bench, unit.id, self._owner, max_attempts, lambda done, total: self._on_items(unit, done, total))
