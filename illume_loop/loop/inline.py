"""The inline executor: this process does every unit, one after the other. No server, no other worker.

A round may be cancelled from another terminal. The unit in hand is then dropped at its next report of progress.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from sqlalchemy.orm import Session

from illume_db.rounds import round_at, round_of
from illume_db.sessions import transaction
from illume_db.units import UnitRow, ready_units
from illume_loop.errors import LostLeaseError, UnitCancelledError
from illume_loop.host import host_name, process_name
from illume_loop.loop.executor import perform
from illume_loop.loop.reconcile import Issue
from illume_loop.loop.states import RoundState
from illume_loop.loop.workbench import Workbench

log = logging.getLogger(__name__)


class InlineExecutor:
    """Does the first unit that is due and returns, so that what has become more urgent comes next."""

    def __init__(self, bench: Workbench, on_items: Callable[[UnitRow, int, int], None]) -> None:
        """`on_items` hears (unit, items done, items in all) while a long unit goes on, and (unit, 0, 0) at its end."""
        self._bench = bench
        self._on_items = on_items
        self._owner = process_name(host_name(bench.settings.runtime.host_name))

    def issue(self, issues: Sequence[Issue]) -> bool:
        """Do one unit; see `Executor.issue`."""
        with transaction(self._bench.engine) as session:
            unit = next(self._units_due(session, issues), None)
        if unit is None:
            return False
        max_attempts = self._bench.settings.runtime.max_attempts
        try:
            perform(self._bench, unit.id, self._owner, max_attempts, partial(self._went_on, unit))
        except UnitCancelledError as cancelled:
            log.info("%s", cancelled)
            self._bench.fresh_images.clear()
            return True
        self._on_items(unit, 0, 0)
        return True

    def _went_on(self, unit: UnitRow, done: int, total: int) -> None:
        """Tell how far a unit is. Raises LostLeaseError where a person has cancelled its round meanwhile."""
        with transaction(self._bench.engine) as session:
            state = round_of(session, unit.round_id).state
        if state == RoundState.CANCELLED:
            raise LostLeaseError(unit=unit.key)
        self._on_items(unit, done, total)

    def _units_due(self, session: Session, issues: Sequence[Issue]) -> Iterator[UnitRow]:
        for issue in issues:
            round_id = round_at(session, self._bench.run_id, issue.index).id
            for kind in issue.kinds:
                yield from ready_units(session, round_id, kind, 1)
