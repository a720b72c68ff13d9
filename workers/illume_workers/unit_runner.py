"""Run the unit of a message: find the unit, lease it, do it, and commit its effect.

Invariants:

- A message has an effect only if its unit is pending and has the message's token. A message that is late, duplicated
  or older than a restart costs one read of the database.
- The effect and the completion of a unit are one transaction, which the lease fences. It is tried again while the
  database is away. If the unit is then done under the worker's own lease, the first try has succeeded.
- A context that cannot be made counts as a failed attempt at the unit, so no unit is sent again forever.
"""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from illume_db.errors import FencedOutError
from illume_db.leases import Lease, UnitAddress, find_unit, hand_back, lease_unit, version_name_of
from illume_db.sessions import transaction
from illume_loop.errors import CorruptArtifactError, LostLeaseError, TeacherError, UnfitWorkerError, UnhealthyError
from illume_loop.loop.context import RunContext
from illume_loop.loop.executor import count_failure, do_leased_unit, sentence_of
from illume_loop.loop.outages import RetryPolicy, is_outage
from illume_loop.settings import Settings
from illume_workers.contexts import RunContexts
from illume_workers.heartbeat import Heartbeat
from illume_workers.messages import UnitMessage

log = logging.getLogger(__name__)


class UnitRunner:
    """The runner of a worker's units, for the kinds of its roles."""

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        contexts: RunContexts,
        heartbeat: Heartbeat,
        *,
        name: str,
        kinds: frozenset[str],
    ) -> None:
        self._engine, self._settings, self._contexts, self._heartbeat = engine, settings, contexts, heartbeat
        self._name, self._kinds = name, kinds
        self._patience = RetryPolicy(settings.cluster.reconnect_s)
        self._run_id = 0

    def attend(self, message: UnitMessage) -> None:
        """Lease and do the unit of a message; drop the message if the unit is not of this worker's kinds or was taken.

        It does nothing while the worker drains. Raises UnhealthyError, after the unit was handed back, if a further
        attempt on this host would fail as well. Raises the database's error if the database stays away.
        """
        if self._heartbeat.draining:
            return
        address = self._patience.run_through(lambda: self._find(message))
        if address is None or address.kind not in self._kinds:
            log.warning("dropped a message for unit %d, which is none of this worker's", message.unit_id)
            return
        self._run_id = address.run_id
        lease = self._patience.run_through(lambda: self._lease(message))
        if lease is None:
            log.debug("dropped a late message for unit %d at token %d", message.unit_id, message.token)
            return
        self._heartbeat.took(lease)
        finished = False
        try:
            max_attempts = self._settings.runtime.max_attempts
            advanced = self._heartbeat.advanced
            # Every host sees the same damaged checkpoint or manifest in the store, and the same teacher that does not
            # answer. These failures therefore count as attempts.
            counted = (CorruptArtifactError, TeacherError)
            context = self._context_for(lease, max_attempts)
            finished = do_leased_unit(context, lease, max_attempts, advanced, self._patience, counted=counted)
        except LostLeaseError as lost:
            log.warning("%s", lost)
        except UnhealthyError:
            self._patience.run_through(lambda: self._hand_back(lease))
            raise
        finally:
            self._heartbeat.dropped(finished)
            self._contexts.tidy()

    def loaded(self, sha256: str) -> None:
        """Tell the heartbeat which model version was loaded for the current unit."""
        with transaction(self._engine) as session:
            self._heartbeat.uses(version_name_of(session, self._run_id, sha256))

    def _context_for(self, lease: Lease, max_attempts: int) -> RunContext:
        """Return the context of the lease's run.

        Raises UnfitWorkerError, after a failed attempt was counted, if the context cannot be made. Raises
        LostLeaseError if the lease was lost meanwhile.
        """
        try:
            context = self._patience.run_through(lambda: self._contexts.of_run(self._run_id))
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("no context for unit %s", lease.key)
            reason = sentence_of(error)
            try:
                self._patience.run_through(lambda: count_failure(self._engine, lease, reason, max_attempts))
            except FencedOutError as lost:
                raise LostLeaseError(unit=lease.key) from lost
            # This worker would fail at its next unit as well, and take it from a worker that can do it.
            raise UnfitWorkerError(run=self._run_id, reason=reason) from error
        self._heartbeat.progressed()
        return context

    def _find(self, message: UnitMessage) -> UnitAddress | None:
        with transaction(self._engine) as session:
            return find_unit(session, message.unit_id)

    def _lease(self, message: UnitMessage) -> Lease | None:
        with transaction(self._engine) as session:
            return lease_unit(
                session, message.unit_id, self._name, token=message.token, lease_s=self._settings.cluster.lease_s
            )

    def _hand_back(self, lease: Lease) -> bool:
        with transaction(self._engine) as session:
            return hand_back(session, lease)
