"""A worker's heartbeat thread: it renews the lease while the unit makes progress, and ends the process if necessary.

Invariants:
- A lease is renewed only if work was finished since the last renewal: an item, an engine batch, a file, a stage of a
  model load. Time alone renews no lease, so a worker that hangs loses its unit.
- No error ends this thread. It logs the error and tries again at the next heartbeat. It ends the process with
  EXIT_UNHEALTHY after `reconnect_s` without a heartbeat, or with a unit in hand after the longer of `reconnect_s` and a
  lease.
- A worker without progress for `stall_after_s` hands its unit back and ends the process with EXIT_UNHEALTHY.
- A draining worker hands its unit back at the deadline and ends the process. Its lease is gone then, so nothing that it
  could still write would be accepted.
- The thread ends an idle process with EXIT_UNHEALTHY if units of its kinds were sent and have waited for
  `stall_after_s`, because the worker then receives no messages.
- The thread never waits for the main thread, which may be inside a call that no signal handler interrupts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from threading import Event, Lock, Thread

from sqlalchemy import Engine

from illume_db.leases import Lease, hand_back, has_undelivered_units, is_held, renew_lease
from illume_db.sessions import transaction
from illume_db.workers import beat, mark_stopped
from illume_loop.errors import LostLeaseError
from illume_loop.loop.outages import reason_of
from illume_loop.settings import ClusterSettings
from illume_loop.telemetry.health import HealthFile, State

EXIT_DONE, EXIT_UNHEALTHY = 0, 3

BEATS_IN_A_LEASE = 3
"""The least number of heartbeats within one lease, whatever `heartbeat_s` is, so that a late one costs no unit."""

HEALTH_SLACK_S = 15.0
"""The seconds by which a heartbeat may be late on a busy host before the worker counts as unhealthy."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _CurrentUnit:
    """The worker's current unit and its progress.

    `num_reports` counts all finished pieces of work, not only items. `granted_s` are the seconds that an outage of the
    database adds to the time without progress that is allowed.
    """

    lease: Lease
    progress_at: float
    done: int = 0
    total: int = 0
    num_reports: int = 0
    num_renewed: int = 0
    granted_s: float = 0.0
    lost: bool = False

    def stalls_at(self, stall_after_s: float) -> float:
        """Return the time at which the unit counts as stalled if it makes no further progress."""
        return self.progress_at + stall_after_s + self.granted_s


class Heartbeat:
    """The heartbeat thread. The main thread reports its work to it; `end` ends the process at once."""

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
        health: HealthFile | None = None,
    ) -> None:
        """Prepare the thread. `stop` asks the main thread to take no further unit; other threads call it."""
        self._health = health or HealthFile()
        self._engine, self._name, self._settings, self._kinds = engine, name, settings, kinds
        self._stop, self._end, self._clock = stop, end, clock
        self._lock = Lock()
        self._hold: _CurrentUnit | None = None
        self._items_done = 0
        self._progressed = False
        self._model: str | None = None
        self._drain_by: float | None = None
        self._exit_code = EXIT_DONE
        self._asked_to_drain = False
        self._reached_at = self._idle_since = clock()
        self._wake = Event()
        self._over = False
        self._thread = Thread(target=self._run, name="heartbeat", daemon=True)

    # --- called by the main thread -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and wait for its end."""
        self._over = True
        self._wake.set()
        self._thread.join()

    def took(self, lease: Lease) -> None:
        """Record that the main thread has leased a unit."""
        with self._lock:
            self._hold = _CurrentUnit(lease, self._clock(), total=lease.num_items)

    def advanced(self, done: int, total: int) -> None:
        """Record that `done` of the unit's `total` items are finished; a total of 0 means progress without items.

        Raises LostLeaseError if the lease is known to be lost.
        """
        with self._lock:
            if self._hold is not None and total:
                self._hold.done, self._hold.total = done, total
        self.progressed()

    def progressed(self) -> None:
        """Record that a piece of the current unit's work is finished: a batch, a file, a stage. Any thread may call it.

        Raises LostLeaseError if the lease is known to be lost, so that useless work ends here.
        """
        with self._lock:
            hold = self._hold
            if hold is None:
                return
            hold.num_reports += 1
            hold.progress_at, hold.granted_s = self._clock(), 0.0
            if hold.lost:
                raise LostLeaseError(unit=hold.lease.key)

    def dropped(self, finished: bool) -> None:
        """Record that the main thread's work on the unit is over, finished or not.

        A finished unit counts with the reported items if they are more than the planned ones: a training reports its
        steps and has no planned items.
        """
        with self._lock:
            hold, self._hold = self._hold, None
            self._idle_since = self._clock()
            if finished and hold is not None:
                self._items_done += max(hold.done, hold.lease.num_items)
                self._progressed = True

    def uses(self, model: str | None) -> None:
        """Record the model version that was loaded, which is progress too."""
        with self._lock:
            self._model = model
        self.progressed()

    def drain(self, exit_code: int = EXIT_DONE) -> None:
        """Take no further unit, and end the process by the drain's deadline.

        Any thread may call it, and more than once. The process ends with `exit_code`; a person's request (EXIT_DONE)
        takes precedence over a signal.
        """
        with self._lock:
            if self._drain_by is None or exit_code == EXIT_DONE:
                self._exit_code = exit_code
            if self._drain_by is None:
                self._drain_by = self._clock() + self._settings.drain_deadline_s
                log.info("draining: no further unit is taken, %.0f s at most", self._settings.drain_deadline_s)
        self._stop()
        self._wake.set()

    @property
    def exit_code(self) -> int:
        """The exit code of the process after a drain."""
        return self._exit_code

    @property
    def draining(self) -> bool:
        """True if the worker takes no further unit."""
        return self._drain_by is not None

    # --- the thread --------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._over:
            self._wake.clear()
            self.beat()
            self._wake.wait(self._pause())

    def beat(self) -> None:
        """Send a heartbeat, renew the lease if work was finished, and end the process if that is due.

        No error leaves this method.
        """
        try:
            self._tell()
            self._tell_health("ok", self._doing())
        except Exception as error:
            # Any error is caught, because without this thread nothing would drain the worker or detect that it hangs.
            self._tell_health("unhealthy", f"{self._name} has no heartbeat: {reason_of(error)}")
            log.warning("no heartbeat: %s", reason_of(error))
            self._end_if_cut_off(error)
        try:
            self._end_where_due()
        except Exception:
            log.exception("could not end this worker, trying again at the next heartbeat")

    def _tell(self) -> None:
        with self._lock:
            hold, progressed = self._hold, self._progressed
            done, total, reports = (hold.done, hold.total, hold.num_reports) if hold else (0, 0, 0)
            renews = hold is not None and reports > hold.num_renewed
            progressed = progressed or renews
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
            # The round was cancelled, or another worker has the unit. The next report of progress ends the work on it.
            with self._lock:
                hold.lost = True
        if hold is not None and not lost and renews:
            self._renew(hold, done, total, reports)
        with self._lock:
            self._progressed = False
            self._reached_at = self._clock()
        if drain and not self._asked_to_drain:
            self._asked_to_drain = True
            self.drain()
        if hold is None and self._is_deaf():
            self._leave(None, "unhealthy", EXIT_UNHEALTHY, "units of this worker's kinds are sent, and none arrives")

    def _tell_health(self, state: State, sentence: str) -> None:
        # One heartbeat may be late, and a restart of the database delays two.
        self._health.tell(state, sentence, 3 * self._settings.heartbeat_s + HEALTH_SLACK_S)

    def _doing(self) -> str:
        with self._lock:
            hold = self._hold
        if hold is not None:
            return f"{self._name} works on unit {hold.lease.key}"
        return f"{self._name} {'is draining' if self.draining else 'waits for a unit'}"

    def _renew(self, hold: _CurrentUnit, done: int, total: int, reports: int) -> None:
        with transaction(self._engine) as session:
            kept = renew_lease(session, hold.lease, done, total, self._settings.lease_s)
        with self._lock:
            hold.num_renewed = reports
            hold.lost = not kept

    def _is_deaf(self) -> bool:
        stall_after_s = self._settings.stall_after_s
        if self.draining or self._clock() - self._idle_since <= stall_after_s:
            return False
        with transaction(self._engine) as session:
            return has_undelivered_units(session, self._kinds, stall_after_s, 2 * self._settings.reissue_after_s)

    def _end_where_due(self) -> None:
        now = self._clock()
        with self._lock:
            hold, drain_by = self._hold, self._drain_by
        if drain_by is not None and now >= drain_by:
            self._leave(hold, "stopped", self._exit_code, "the drain's deadline is over")
        elif hold is not None and now > hold.stalls_at(self._settings.stall_after_s):
            reason = f"no progress for {now - hold.progress_at:.0f} s ({hold.done} of {hold.total} items are done)"
            self._leave(hold, "unhealthy", EXIT_UNHEALTHY, reason)

    def _end_if_cut_off(self, error: Exception) -> None:
        """End the process if it has had no heartbeat for too long.

        That is `reconnect_s` for an idle worker, and the longer of `reconnect_s` and a lease for one with a unit.

        The main thread may be waiting for the database as well, for `reconnect_s` at most. The unit is not the cause,
        so this time does not count as time without progress.
        """
        away = self._clock() - self._reached_at
        with self._lock:
            busy = self._hold is not None
            if self._hold is not None:
                self._hold.granted_s = max(self._hold.granted_s, min(away, self._settings.reconnect_s))
        if away > max(self._settings.reconnect_s, self._settings.lease_s if busy else 0.0):
            log.critical("no heartbeat for %.0f s, ending: %s", away, reason_of(error))
            self._end(EXIT_UNHEALTHY)

    def _leave(self, hold: _CurrentUnit | None, state: str, code: int, reason: str) -> None:
        log.critical("%s: ending%s", reason, f", unit {hold.lease.key} is handed back" if hold else "")
        try:
            with transaction(self._engine) as session:
                if hold is not None:
                    hand_back(session, hold.lease)
                mark_stopped(session, self._name, state)
        except Exception as error:
            # The lease expires by itself.
            log.warning("could not note the end in the database: %s", reason_of(error))
        finally:
            self._end(code)

    def _pause(self) -> float:
        with self._lock:
            hold, drain_by = self._hold, self._drain_by
        heartbeat_s = self._settings.heartbeat_s
        if hold is not None:
            heartbeat_s = min(heartbeat_s, self._settings.lease_s / BEATS_IN_A_LEASE)
        dues = [] if drain_by is None else [drain_by]
        if hold is not None:
            dues.append(hold.stalls_at(self._settings.stall_after_s))
        left = min(dues, default=float("inf")) - self._clock()
        return max(0.01, min(heartbeat_s, left))
