"""From a message to a unit that is done: look the unit up, lease it, do it, commit its effect.

Invariants:
- A message has no effect unless its unit is pending and at its token. One that is late, doubled or from before a
  restart costs one look at the database.
- The effect and the completion of a unit are one transaction, fenced by the lease, tried again while the database is
  away. Finding the unit done under our own lease counts as done.
- A context that cannot be made counts as an attempt at the unit, as any other failure does, so no unit is sent out
  for ever.
"""

from __future__ import annotations

import logging

from sqlalchemy import Engine

from illume_db.errors import FencedOutError
from illume_db.leases import Lease, UnitAddress, find_unit, hand_back, lease_unit, version_name_of
from illume_db.sessions import transaction
from illume_loop.errors import CorruptArtifactError, LostLeaseError, TeacherError, UnfitWorkerError, UnhealthyError
from illume_loop.loop.context import RunContext
from illume_loop.loop.executor import count_failure, do_unit, sentence_of
from illume_loop.loop.outages import Patience, is_outage
from illume_loop.settings import Settings
from illume_workers.contexts import RunContexts
from illume_workers.heartbeat import Heartbeat
from illume_workers.messages import UnitMessage

log = logging.getLogger(__name__)


class UnitRunner:
    """Does the units that messages name, for the kinds of its roles."""

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
        self._patience = Patience(settings.cluster.reconnect_s)
        self._run_id = 0

    def attend(self, message: UnitMessage) -> None:
        """Do the unit, if it is ours to do.

        Raises UnhealthyError for what no other attempt on this host would mend, after the unit was handed back; the
        database's own error where it stays away.
        """
        if self._heartbeat.draining:
            return
        address = self._patience.outlast(lambda: self._find(message))
        if address is None or address.kind not in self._kinds:
            log.warning("dropped a message for unit %d, which is none of this worker's", message.unit_id)
            return
        self._run_id = address.run_id
        lease = self._patience.outlast(lambda: self._lease(message))
        if lease is None:
            log.debug("dropped a late message for unit %d at token %d", message.unit_id, message.token)
            return
        self._heartbeat.took(lease)
        finished = False
        try:
            max_attempts = self._settings.runtime.max_attempts
            advanced = self._heartbeat.advanced
            # A checkpoint or a manifest that is damaged in the store is so on every host, and so is a teacher that does
            # not answer: they are counted.
            counted = (CorruptArtifactError, TeacherError)
            context = self._context_for(lease, max_attempts)
            finished = do_unit(context, lease, max_attempts, advanced, self._patience, counted=counted)
        except LostLeaseError as lost:
            log.warning("%s", lost)
        except UnhealthyError:
            self._patience.outlast(lambda: self._hand_back(lease))
            raise
        finally:
            self._heartbeat.dropped(finished)
            self._contexts.tidy()

    def loaded(self, sha256: str) -> None:
        """A checkpoint was loaded for the unit in hand: tell the heartbeat which version it is."""
        with transaction(self._engine) as session:
            self._heartbeat.uses(version_name_of(session, self._run_id, sha256))

    def _context_for(self, lease: Lease, max_attempts: int) -> RunContext:
        """Return the context of the lease's run. Raises UnfitWorkerError, after the attempt was counted."""
        try:
            context = self._patience.outlast(lambda: self._contexts.of_run(self._run_id))
        except Exception as error:
            if is_outage(error):
                raise
            log.exception("no context for unit %s", lease.key)
            reason = sentence_of(error)
            try:
                self._patience.outlast(lambda: count_failure(self._engine, lease, reason, max_attempts))
            except FencedOutError as lost:
                raise LostLeaseError(unit=lease.key) from lost
            # This worker would fail at the next unit as well, and take it from one that can do it.
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
