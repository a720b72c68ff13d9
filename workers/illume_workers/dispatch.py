"""The dispatcher: it sends units to workers on other hosts, takes back expired leases, and detects stalled stages.

Invariants:

- At most `cluster.units_per_worker` units for each live worker of a role are under way. A round that ends early
  therefore wastes little work.
- The database holds which units were sent. A unit that no worker took is sent again, so a lost message costs only time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from sqlalchemy.orm import Session

from illume_db.leases import expire_leases, held_units, items_held, last_worker, progress_age
from illume_db.rounds import round_at, total_rounds
from illume_db.rounds_table import stage_of
from illume_db.runs import add_event
from illume_db.tables.units import ROLE_OF_KIND
from illume_db.units import UnitRow, mark_issued, num_in_flight, ready_units, stage_counts
from illume_db.workers import live_workers
from illume_loop.errors import StageStalledError
from illume_loop.loop.context import RunContext
from illume_loop.loop.coordinator import StageProgress
from illume_loop.loop.reconcile import Issue
from illume_workers.leadership import Leadership

MISSED_BEATS = 3
"""The heartbeats that a worker may miss before it no longer counts as live."""

log = logging.getLogger(__name__)


class Sender(Protocol):
    """The transport that tells workers about units."""

    def send(self, units: Sequence[UnitRow]) -> Sequence[UnitRow]:
        """Send messages about units; return the units that were sent.

        The dispatcher passes the other units again at a later call. Raises UnhealthyError if sending fails for too
        long.
        """
        ...


class Dispatcher:
    """An executor that has units done by workers; it implements `illume_loop.loop.executor.Executor`."""

    def __init__(
        self,
        context: RunContext,
        leadership: Leadership,
        sender: Sender,
        on_stage: Callable[[StageProgress], None],
        num_rounds: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._context, self._leadership, self._sender = context, leadership, sender
        self._settings = context.settings.cluster
        self._on_stage, self._num_rounds = on_stage, num_rounds
        self._told: dict[tuple[int, str], tuple[int, int]] = {}
        self._clock = clock
        self._since = clock()

    def issue(self, issues: Sequence[Issue]) -> bool:
        """Take back expired leases and send as many units as the workers have room for.

        It returns whether a lease expired, a unit was sent or a stage made progress since the last call. Raises
        StageStalledError if a stage has made no progress for `cluster.stage_deadline_s`.
        """
        with self._leadership.transaction() as session:
            num_expired = self._expire(session)
            units = self._admitted(session, issues)
            moved = self._tell(session, issues)
            self._check_deadlines(session, issues)
        sent = self._sender.send(units) if units else []
        if sent:
            with self._leadership.transaction() as session:
                mark_issued(session, [unit.id for unit in sent])
        return bool(num_expired or sent or moved)

    def _expire(self, session: Session) -> int:
        context = self._context
        expired = expire_leases(session, context.run_id, context.settings.runtime.max_attempts)
        for lease in expired:
            message = f"round {lease.round_index}, unit {lease.key}: {lease.error}; it is {lease.state} now"
            log.warning(message)
            round_id = round_at(session, context.run_id, lease.round_index).id
            add_event(session, context.run_id, "expired", message, at=context.clock(), round_id=round_id)
        return len(expired)

    def _admitted(self, session: Session, issues: Sequence[Issue]) -> list[UnitRow]:
        """Return the units to send now, those of earlier rounds and of more urgent kinds first."""
        rooms: dict[str, int] = {}
        units: list[UnitRow] = []
        for issue in issues:
            round_id = round_at(session, self._context.run_id, issue.index).id
            for kind in issue.kinds:
                role = ROLE_OF_KIND[kind]
                if role not in rooms:
                    rooms[role] = self._room(session, role)
                if rooms[role] <= 0:
                    continue
                reissue_after_s = self._settings.reissue_after_s
                found = ready_units(session, round_id, kind, rooms[role], reissue_after_s=reissue_after_s)
                rooms[role] -= len(found)
                units += found
        return units

    def _room(self, session: Session, role: str) -> int:
        kinds = [kind for kind, its_role in ROLE_OF_KIND.items() if its_role == role]
        num_live = live_workers(session, kinds[0], MISSED_BEATS * self._settings.heartbeat_s)
        sent_within_s = self._settings.reissue_after_s
        in_flight = sum(
            num_in_flight(session, self._context.run_id, kind, sent_within_s=sent_within_s) for kind in kinds
        )
        return self._settings.units_per_worker * num_live - in_flight

    def _tell(self, session: Session, issues: Sequence[Issue]) -> bool:
        """Report the progress of the stages that are under way; return whether any of them made progress."""
        moved = False
        num_rounds = total_rounds(session, self._context.run_id, self._num_rounds)
        for issue in issues:
            round_ = round_at(session, self._context.run_id, issue.index)
            counts = stage_counts(session, round_.id)
            for kind in issue.kinds:
                if kind not in counts:
                    continue
                done, total = counts[kind].items_done, counts[kind].items_total
                if not total:
                    done, total = items_held(session, round_.id, kind)
                if total and self._told.get((issue.index, kind)) != (done, total):
                    self._told[issue.index, kind] = (done, total)
                    stage = stage_of(kind, round_.state)
                    self._on_stage(StageProgress(issue.index, num_rounds, stage, min(done, total), total))
                    moved = True
        return moved

    def _check_deadlines(self, session: Session, issues: Sequence[Issue]) -> None:
        waited = self._clock() - self._since
        if waited <= self._settings.stage_deadline_s:
            return
        for issue in issues:
            round_ = round_at(session, self._context.run_id, issue.index)
            age = min(waited, progress_age(session, round_.id))
            if age > self._settings.stage_deadline_s:
                raise StageStalledError(
                    index=issue.index,
                    stage=stage_of(issue.kinds[-1], round_.state),
                    seconds=round(age),
                    who=self._who(session, round_.id, issue),
                )

    def _who(self, session: Session, round_id: int, issue: Issue) -> str:
        held = [unit for unit in held_units(session, round_id) if unit["kind"] in issue.kinds]
        if held:
            unit = held[0]
            return (
                f"Worker {unit['worker']} holds unit {unit['unit']} at {unit['items_done']} of {unit['items_total']}"
                f" items, its last progress {unit['progress_age_s']:.0f} s ago"
            )
        ready = [kind for kind in issue.kinds if ready_units(session, round_id, kind, 1)]
        # A unit that is neither held nor ready waits for the units before it.
        kind = ready[0] if ready else issue.kinds[-1]
        role, waiting = ROLE_OF_KIND[kind], stage_counts(session, round_id)[kind].num_pending
        num_live = live_workers(session, kind, MISSED_BEATS * self._settings.heartbeat_s)
        last = last_worker(session, role)
        seen = (
            f"the last one, {last['name']}, was heard of {last['heartbeat_age_s']:.0f} s ago ({last['state']})"
            if last
            else "there has never been one"
        )
        who = f"none of {num_live} live workers takes one" if num_live else "no worker of it is alive"
        return f"{waiting} units wait for the role {role}, and {who}: {seen}"
