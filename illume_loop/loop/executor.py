"""How units get done: the interface, and the life of one unit that every executor shares."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from db.errors import FencedOutError
from db.queries.progress import UnitRow
from db.sessions import transaction
from db.writes.units import Lease, fail_attempt, finish_unit, lease_unit
from illume_loop.artifacts.files import disk_is_full
from illume_loop.errors import ConflictError, LostLeaseError, StorageFullError, UnhealthyError
from illume_loop.loop.units import UNIT_FUNCTIONS, OnItems
from illume_loop.loop.workbench import Workbench

log = logging.getLogger(__name__)


class Executor(Protocol):
    """Gets units done somewhere."""

    def issue(self, units: Sequence[UnitRow]) -> None:
        """Bring pending units forward, the first ones first; back as soon as the round may look different."""
        ...


def perform(bench: Workbench, unit_id: int, owner: str, max_attempts: int, on_items: OnItems) -> None:
    """Lease a unit, do it, and commit its effect together with its completion.

    A failure is counted and recorded in the unit, which becomes `dead` after the last attempt. What no other attempt
    could mend by itself is not counted but raised: a full disk, a damaged artifact, a conflict. Raises LostLeaseError
    where another worker took the unit meanwhile.
    """
    with transaction(bench.engine) as session:
        lease = lease_unit(session, unit_id, owner)
    if lease is None:
        return
    try:
        _attempt(bench, lease, on_items)
    except FencedOutError as error:
        raise LostLeaseError(unit=lease.key) from error
    except (UnhealthyError, ConflictError):
        raise
    except Exception as error:
        if disk_is_full(error):
            raise StorageFullError(path=bench.scratch.parent) from error
        log.exception("unit %s failed", lease.key)
        with transaction(bench.engine) as session:
            fail_attempt(session, lease, _sentence(error), max_attempts)


def _attempt(bench: Workbench, lease: Lease, on_items: OnItems, now: Callable[[], float] = time.monotonic) -> None:
    started = now()
    effect = UNIT_FUNCTIONS[lease.kind](bench, lease, on_items)
    with transaction(bench.engine) as session:
        finish_unit(session, lease, now() - started, effect)


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
