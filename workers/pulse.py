"""The pulse of a worker: a thread that shows that it lives, keeps its lease while it gets on, and ends it when it must.

Guarantee: a lease is renewed only for items that were finished since its last renewal. A worker that hangs therefore
loses its unit, is marked unhealthy and ends itself, so that whatever started it starts it anew. A worker that drains
and is not done by the deadline hands its unit back and ends: all it could still write is fenced out by then. The
thread needs nothing of the main thread for this, which may be deep in a call that no signal handler interrupts. A
worker that has nothing in hand while units of its kinds are sent in vain hears nothing any more, and ends itself too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import Event, Lock, Thread

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from db.queries.leases import is_held, is_left_waiting
from db.sessions import transaction
from db.writes.units import Lease, hand_back, renew_lease
from db.writes.workers import beat, mark_stopped
from illume_loop.config import ClusterSettings
from illume_loop.errors import LostLeaseError

EXIT_DONE, EXIT_UNHEALTHY = 0, 3

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Hold:
    """The unit in hand, and how far it is."""

    lease: Lease
    progress_at: float
    done: int = 0
    total: int = 0
    renewed_done: int = 0
    lost: bool = False


class Pulse:
    """See the module. The main thread tells it what it does; `end` ends the process at once."""

    def __init__(
        self,
        engine: Engine,
        name: str,
        settings: ClusterSettings,
        kinds: Collection[str],
        *,
        stop: Callable[[], None],
        end: Callable[[int], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stop` asks the main thread to take no further unit; it is called from the pulse's thread."""
        self._engine, self._name, self._settings, self._kinds = engine, name, settings, kinds
        self._stop, self._end, self._clock = stop, end, clock
        self._lock = Lock()
        self._hold: _Hold | None = None
        self._items_done = 0
        self._progressed = False
        self._model: str | None = None
        self._drain_by: float | None = None
        self._reached_at = self._idle_since = clock()
        self._wake = Event()
        self._over = False
        self._thread = Thread(target=self._run, name="pulse", daemon=True)

    # --- told by the main thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def close(self) -> None:
        """Beat no more."""
        self._over = True
        self._wake.set()
        self._thread.join()

    def took(self, lease: Lease) -> None:
        """A unit was leased."""
        with self._lock:
            self._hold = _Hold(lease, self._clock())

    def advanced(self, done: int, total: int) -> None:
        """`done` of the unit's items are finished. Raises LostLeaseError where the lease is known to be lost."""
        with self._lock:
            hold = self._hold
            if hold is None:
                return
            if done > hold.done:
                hold.progress_at = self._clock()
            hold.done, hold.total = done, total
            if hold.lost:
                raise LostLeaseError(unit=hold.lease.key)

    def dropped(self, finished: bool) -> None:
        """The unit is over, finished or not. The items of a training are its steps."""
        with self._lock:
            hold, self._hold = self._hold, None
            self._idle_since = self._clock()
            if finished and hold is not None:
                self._items_done += max(hold.done, hold.lease.num_items)
                self._progressed = True

    def uses(self, model: str | None) -> None:
        """A model version was loaded, which is progress too: the largest ones take minutes."""
        with self._lock:
            self._model = model
            if self._hold is not None:
                self._hold.progress_at = self._clock()

    def drain(self) -> None:
        """Take no further unit, and be gone by the deadline. Safe to call from a signal handler's side and twice."""
        with self._lock:
            if self._drain_by is None:
                self._drain_by = self._clock() + self._settings.drain_deadline_s
                log.info("draining: no further unit is taken, %.0f s at most", self._settings.drain_deadline_s)
        self._stop()
        self._wake.set()

    @property
    def draining(self) -> bool:
        """Whether no further unit is to be taken."""
        return self._drain_by is not None

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._over:
            self._wake.clear()
            self.beat()
            self._wake.wait(self._pause())

    def beat(self) -> None:
        """Show life, renew the lease where items were finished, end the process where that is due."""
        try:
            self._tell()
        except DBAPIError as error:
            log.warning("no heartbeat, the database is away: %s", error.orig)
            self._await_database()
        self._end_where_due()

    def _tell(self) -> None:
        with self._lock:
            hold, progressed = self._hold, self._progressed
            done, total = (hold.done, hold.total) if hold else (0, 0)
            progressed = progressed or (hold is not None and done > hold.renewed_done)
            model, items_done = self._model, self._items_done + done
        state = "draining" if self.draining else "running"
        key = hold.lease.key if hold else None
        with transaction(self._engine) as session:
            drain = beat(
                session,
                self._name,
                state=state,
                unit_key=key,
                items_done=items_done,
                model_version=model,
                progressed=progressed,
            )
            lost = hold is not None and not is_held(session, hold.lease.unit_id, hold.lease.token)
        if hold is not None and lost:
            # Its round was cancelled, or another worker has the unit: the next report of progress ends the work on it.
            with self._lock:
                hold.lost = True
        if hold is not None and not lost and done > hold.renewed_done:
            self._renew(hold, done, total)
        with self._lock:
            self._progressed = False
            self._reached_at = self._clock()
        if drain and not self.draining:
            self.drain()
        if hold is None and self._is_deaf():
            self._leave(None, "unhealthy", EXIT_UNHEALTHY, "units of this worker's kinds are sent, and none arrives")

    def _renew(self, hold: _Hold, done: int, total: int) -> None:
        with transaction(self._engine) as session:
            kept = renew_lease(session, hold.lease, done, total, self._settings.lease_s)
        with self._lock:
            hold.renewed_done = done
            hold.lost = not kept

    def _is_deaf(self) -> bool:
        stall_after_s = self._settings.stall_after_s
        if self.draining or self._clock() - self._idle_since <= stall_after_s:
            return False
        with transaction(self._engine) as session:
            return is_left_waiting(session, self._kinds, stall_after_s, 2 * self._settings.reissue_after_s)

    def _end_where_due(self) -> None:
        now = self._clock()
        with self._lock:
            hold, drain_by = self._hold, self._drain_by
        if drain_by is not None and now >= drain_by:
            self._leave(hold, "stopped", EXIT_DONE, "the drain's deadline is over")
        elif hold is not None and now - hold.progress_at > self._settings.stall_after_s:
            reason = f"no progress for {now - hold.progress_at:.0f} s ({hold.done} of {hold.total} items are done)"
            self._leave(hold, "unhealthy", EXIT_UNHEALTHY, reason)

    def _await_database(self) -> None:
        """An idle worker without a database ends; a busy one finds out when it commits, and waits as long there.

        Waiting for the database is no fault of the unit's, so it does not count as a lack of progress.
        """
        away = self._clock() - self._reached_at
        with self._lock:
            hold = self._hold
            if hold is not None:
                hold.progress_at = self._clock()
        if hold is None and away > self._settings.reconnect_s:
            log.critical("the database has been away for %.0f s, ending", away)
            self._end(EXIT_UNHEALTHY)

    def _leave(self, hold: _Hold | None, state: str, code: int, reason: str) -> None:
        log.critical("%s: ending%s", reason, f", unit {hold.lease.key} is handed back" if hold else "")
        try:
            with transaction(self._engine) as session:
                if hold is not None:
                    hand_back(session, hold.lease)
                mark_stopped(session, self._name, state)
        except DBAPIError as error:
            # The lease will expire by itself.
            log.warning("could not say goodbye, the database is away: %s", error.orig)
        self._end(code)

    def _pause(self) -> float:
        with self._lock:
            hold, drain_by = self._hold, self._drain_by
        dues = [] if drain_by is None else [drain_by]
        if hold is not None:
            dues.append(hold.progress_at + self._settings.stall_after_s)
        left = min(dues, default=float("inf")) - self._clock()
        return max(0.01, min(self._settings.heartbeat_s, left))
