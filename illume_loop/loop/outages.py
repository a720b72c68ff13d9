"""Outlast a database that is away for a while: try the same transaction again until a deadline.

Invariants:

- Work is tried again only if a lost connection, or a lock that was not granted in time, undid it.
- Work is tried again only until the deadline.
- The work is one transaction, or computes the same result each time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from illume_db.errors import problem_of
from illume_loop.files import disk_is_full

T = TypeVar("T")
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0

log = logging.getLogger(__name__)


def is_outage(error: BaseException) -> bool:
    """Return whether the database could not be reached, or gave up the transaction through no fault of its statements.

    A pool that had no free connection in time counts too. Its error is not a DBAPIError, because no driver was asked.
    """
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError) or disk_is_full(error):
        return False
    trouble = problem_of(error)
    if trouble is not None and trouble.kind == "address":
        return False
    return isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated


def reason_of(error: BaseException) -> str:
    """Return the text of an error in one line: the driver's own words if there are some, without the statement."""
    told = error.orig if isinstance(error, DBAPIError) else error
    return " ".join(str(told).split()) or type(error).__name__


@dataclass(slots=True)
class RetryPolicy:
    """The time to wait for the database: at most `seconds` from the first failure of one piece of work."""

    seconds: float
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = field(default=time.monotonic)

    def run_through(self, work: Callable[[], T]) -> T:
        """Return the result of `work`, and try it again while the database is away.

        Raises the error of `work` if it is not an outage, or if the outage lasts longer than `seconds`.
        """
        failed_at: float | None = None
        pause = FIRST_PAUSE_S
        while True:
            try:
                return work()
            except SQLAlchemyError as error:
                now = self.clock()
                failed_at = now if failed_at is None else failed_at
                left = failed_at + self.seconds - now
                if not is_outage(error) or left <= 0:
                    raise
                log.warning("the database is away, trying for %.0f s more: %s", left, reason_of(error))
            self.sleep(min(pause, left))
            pause = min(2 * pause, LONGEST_PAUSE_S)


NO_RETRY = RetryPolicy(0.0)
"""No waiting. A process gains nothing by waiting for a database file beside it."""
