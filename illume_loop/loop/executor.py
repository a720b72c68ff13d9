"""The executors' interface, the steps of doing one unit that all executors share, and the inline executor.

The inline executor does every unit in this process, one after the other. If a person cancels the round from another
terminal, the unit in progress is dropped at its next report of progress.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Protocol

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from illume_db.errors import FencedOutError
from illume_db.leases import Lease, fail_attempt, finish_unit, lease_unit
from illume_db.rounds import round_at, round_of
from illume_db.sessions import transaction
from illume_db.units import UnitRow, ready_units
from illume_loop.errors import (
    ConflictError,
    IllumeLoopError,
    LostLeaseError,
    StorageFullError,
    UnhealthyError,
    UnitCancelledError,
)
from illume_loop.files import disk_is_full
from illume_loop.host import host_name, process_name
from illume_loop.loop.context import RunContext
from illume_loop.loop.outages import NO_RETRY, RetryPolicy, is_outage
from illume_loop.loop.reconcile import Issue
from illume_loop.loop.routing import unit_function
from illume_loop.loop.states import RoundState
from illume_loop.loop.unit_inputs import OnItems
from illume_loop.telemetry.observing import Watch

log = logging.getLogger(__name__)


class Executor(Protocol):
    """A way to get units done."""

    def issue(self, issues: Sequence[Issue]) -> bool:
        """Get due units done, those of the first issue first; return whether any unit advanced.

        It returns as soon as the rounds may have changed.
        """
        ...


def lease_and_do_unit(context: RunContext, unit_id: int, owner: str, max_attempts: int, on_items: OnItems) -> None:
    """Lease a unit without a time limit and do it; see `do_leased_unit`.

    An error that another attempt could not mend (a full disk, a damaged artifact, a conflict) is raised and not
    counted. Raises LostLeaseError if another worker took the unit meanwhile, UnitCancelledError if its round was
    cancelled.
    """
    with transaction(context.engine) as session:
        lease = lease_unit(session, unit_id, owner)
    if lease is not None:
        # Progress without a total is that of a stage before the items, and is not shown.
        do_leased_unit(context, lease, max_attempts, lambda done, total: on_items(done, total) if total else None)


def do_leased_unit(
    context: RunContext,
    lease: Lease,
    max_attempts: int,
    on_items: OnItems,
    patience: RetryPolicy = NO_RETRY,
    *,
    counted: tuple[type[Exception], ...] = (),
) -> bool:
    """Do a leased unit and commit its effect together with its completion; return whether it is done.

    A failure is counted and recorded in the unit. The unit becomes `dead` after the last attempt, or at once if another
    attempt would only repeat the failure (`IllumeLoopError.repeats`). Three kinds of errors are raised and not counted:
    UnhealthyError and ConflictError, except those of `counted`, and an outage of the database that lasts longer than
    `patience`. Raises LostLeaseError if another worker took the unit meanwhile, UnitCancelledError if its round was
    cancelled.
    """
    watch = Watch(context.run_key, lease.round_index, lease.kind, lease.key, lease.num_items)
    try:
        with watch:
            _attempt(context, lease, on_items, patience)
            log.info("unit %s is done", lease.key)
        return True
    except (FencedOutError, LostLeaseError) as error:
        raise patience.run_through(lambda: _lost(context, lease)) from error
    except Exception as error:
        if isinstance(error, UnhealthyError | ConflictError) and not isinstance(error, counted):
            raise
        if disk_is_full(error):
            raise StorageFullError(path=context.scratch.parent) from error
        if is_outage(error):
            raise
        with watch.lines():
            log.exception("unit %s failed", lease.key)
        sentence = sentence_of(error)
        if isinstance(error, IllumeLoopError) and error.repeats:
            sentence += " Another attempt would end the same way."
            max_attempts = lease.attempts + 1
    try:
        patience.run_through(lambda: count_failure(context.engine, lease, sentence, max_attempts))
    except FencedOutError as error:
        raise patience.run_through(lambda: _lost(context, lease)) from error
    return False


def _attempt(
    context: RunContext,
    lease: Lease,
    on_items: OnItems,
    patience: RetryPolicy,
    now: Callable[[], float] = time.monotonic,
) -> None:
    started = now()
    # The work may be repeated, because all that it reads is fixed and its artifacts are named by content.
    effect = patience.run_through(lambda: unit_function(lease)(context, lease, on_items))
    seconds = now() - started

    def commit() -> None:
        with transaction(context.engine) as session:
            finish_unit(session, lease, seconds, effect)

    patience.run_through(commit)


def count_failure(engine: Engine, lease: Lease, sentence: str, max_attempts: int) -> None:
    """Count a failed attempt at a unit. Raises FencedOutError if the lease is lost."""
    with transaction(engine) as session:
        fail_attempt(session, lease, sentence, max_attempts)


def _lost(context: RunContext, lease: Lease) -> LostLeaseError:
    """Return the error for a lost lease: another worker took the unit, or its round was cancelled."""
    with transaction(context.engine) as session:
        state = round_of(session, lease.round_id).state
    if state == RoundState.CANCELLED:
        return UnitCancelledError(index=lease.round_index, unit=lease.key)
    return LostLeaseError(unit=lease.key)


def sentence_of(error: Exception) -> str:
    """Return the sentence that is recorded for a failed attempt."""
    return f"{type(error).__name__}: {error}"


class InlineExecutor:
    """An executor that does one due unit in this process and returns.

    After each unit the coordinator ticks, so that a unit that has become more urgent comes next.
    """

    def __init__(self, context: RunContext, on_items: Callable[[UnitRow, int, int], None]) -> None:
        """Make an executor for the units of a run.

        `on_items` is called with (unit, items done, total items) while a long unit advances, and with (unit, 0, 0) at
        its end.
        """
        self._context = context
        self._on_items = on_items
        self._owner = process_name(host_name(context.settings.runtime.host_name))

    def issue(self, issues: Sequence[Issue]) -> bool:
        """Do the first due unit; see `Executor.issue`."""
        with transaction(self._context.engine) as session:
            unit = next(self._units_due(session, issues), None)
        if unit is None:
            return False
        max_attempts = self._context.settings.runtime.max_attempts
        try:
            lease_and_do_unit(self._context, unit.id, self._owner, max_attempts, partial(self._went_on, unit))
        except UnitCancelledError as cancelled:
            log.info("%s", cancelled)
            self._context.fresh_images.clear()
            return True
        self._on_items(unit, 0, 0)
        return True

    def _went_on(self, unit: UnitRow, done: int, total: int) -> None:
        """Report the progress of a unit. Raises LostLeaseError if a person has cancelled its round meanwhile."""
        with transaction(self._context.engine) as session:
            state = round_of(session, unit.round_id).state
        if state == RoundState.CANCELLED:
            raise LostLeaseError(unit=unit.key)
        self._on_items(unit, done, total)

    def _units_due(self, session: Session, issues: Sequence[Issue]) -> Iterator[UnitRow]:
        for issue in issues:
            round_id = round_at(session, self._context.run_id, issue.index).id
            for kind in issue.kinds:
                yield from ready_units(session, round_id, kind, 1)
