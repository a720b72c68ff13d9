"""The coordinator: it reads the database, asks the reconciler for the next steps, and takes them.

Invariants:

- It keeps no state that the next coordinator needs. Each step is one transaction, or one unit whose effect is one
  transaction. So after a kill at any point the next coordinator continues from the database to the same manifests.
- Reports to `Progress` are for display only. The run does not depend on them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from sqlalchemy.orm import Session

from illume_db.reviews import num_reviewed
from illume_db.rounds import decision_of, latest_round, open_rounds, round_at, round_of, total_rounds
from illume_db.rounds_table import stage_of
from illume_db.runs import lock_run
from illume_db.sessions import transaction
from illume_db.tables import Round
from illume_db.units import UnitRow, stage_counts
from illume_loop.errors import RoundFailedError
from illume_loop.loop.context import RunContext
from illume_loop.loop.executor import Executor, InlineExecutor
from illume_loop.loop.reconcile import AwaitReviews, Issue, RoundView, Step, reconcile
from illume_loop.loop.routing import take_step
from illume_loop.loop.states import RoundState
from illume_loop.telemetry import tracing


@dataclass(frozen=True, slots=True)
class StageProgress:
    """The progress of one stage of a round: `done` of `total` items are finished."""

    round_index: int
    num_rounds: int
    stage: str
    done: int
    total: int


class Progress(Protocol):
    """An observer of a run's progress."""

    def advanced(self, event: StageProgress) -> None:
        """Report that a stage advanced."""
        ...

    def round_ended(self, index: int, state: str, reasons: Sequence[str]) -> None:
        """Report that a round reached a terminal state."""
        ...


class TickResult(StrEnum):
    """The outcome of a tick."""

    FINISHED = "finished"
    ROUNDS_CHANGED = "rounds changed"
    UNITS_ADVANCED = "units advanced"
    WAITING = "waiting"


REVIEW_POLL_S = 0.5
"""Seconds between two checks for enough reviews. An inline run waits for nothing else."""

Transactions = Callable[[], AbstractContextManager[Session]]


class Coordinator:
    """The coordinator of one run; it takes steps until the run has all its rounds."""

    def __init__(
        self,
        context: RunContext,
        progress: Progress,
        num_rounds: int,
        *,
        executor: Executor | None = None,
        on_round_end: Callable[[], object] = lambda: None,
        transactions: Transactions | None = None,
    ) -> None:
        """Make a coordinator; its default executor is the inline one.

        `transactions` opens the transactions in which steps are taken. `on_round_end` is called after each round that
        has ended.
        """
        self._context = context
        self._on_round_end = on_round_end
        self._progress = progress
        self._num_rounds = self._in_all = num_rounds
        self._executor: Executor = executor or InlineExecutor(context, self._unit_advanced)
        self._transaction: Transactions = transactions or (lambda: _decisive(context))
        self._awaited: AwaitReviews | None = None
        self._open: set[int] = set()
        """The rounds that were open at the last tick, to find those that a person has cancelled since."""

    def run(self) -> None:
        """Tick until no step is due. Raises RoundFailedError if a round fails."""
        while (result := self.tick()) is not TickResult.FINISHED:
            if result is TickResult.WAITING:
                time.sleep(REVIEW_POLL_S)

    def tick(self) -> TickResult:
        """Take the changes that are due; if there are none, get units done."""
        with self._transaction() as session:
            views = views_of(session, self._context.run_id, self._context.settings.curate.reviews)
            cancelled = self._cancelled(session, views)
            steps_due = self._steps_due(session, views)
            changes = [step for step in steps_due if not isinstance(step, Issue | AwaitReviews)]
            for step in changes:
                with tracing.span(_words(step), self._context.run_key, step.index):
                    take_step(self._context, session, step)
        for index in cancelled:
            self._report_end(index)
        if not steps_due:
            return TickResult.FINISHED
        for step in changes:
            self._report_end(step.index)
        if changes:
            return TickResult.ROUNDS_CHANGED
        for awaited in [step for step in steps_due if isinstance(step, AwaitReviews)]:
            self._tell_awaited(awaited)
        issues = [step for step in steps_due if isinstance(step, Issue)]
        return TickResult.UNITS_ADVANCED if self._executor.issue(issues) else TickResult.WAITING

    def _steps_due(self, session: Session, views: Sequence[RoundView]) -> list[Step]:
        loop = self._context.settings.loop
        self._in_all = total_rounds(session, self._context.run_id, self._num_rounds)
        return reconcile(views, self._in_all, loop.overlap_rounds, loop.dead_unit_tolerance)

    def _cancelled(self, session: Session, views: Sequence[RoundView]) -> list[int]:
        """Return the rounds that were cancelled since the last tick."""
        now_open = {view.index for view in views if not view.state.is_terminal}
        gone, self._open = sorted(self._open - now_open), now_open
        rounds = [round_at(session, self._context.run_id, index) for index in gone]
        return [round_.index for round_ in rounds if round_.state == RoundState.CANCELLED]

    def _unit_advanced(self, unit: UnitRow, done: int, total: int) -> None:
        """Report the progress of a unit's stage when `done` of the unit's `total` items are finished.

        The items of the stage's finished units are added.
        """
        with transaction(self._context.engine) as session:
            stage = stage_of(unit.kind, round_of(session, unit.round_id).state)
            counts = stage_counts(session, unit.round_id)[unit.kind]
        if counts.items_total:
            done, total = done + counts.items_done, counts.items_total
        if total:
            event = StageProgress(unit.round_index, self._in_all, stage, done, total)
            self._progress.advanced(event)

    def _tell_awaited(self, step: AwaitReviews) -> None:
        if step != self._awaited:
            self._awaited = step
            wanted = self._context.settings.curate.reviews
            done = max(0, wanted - step.missing)
            self._progress.advanced(StageProgress(step.index, self._in_all, "waiting for reviews", done, wanted))

    def _report_end(self, index: int) -> None:
        """Report the end of a round and write the page of the run, if the round has ended.

        Raises RoundFailedError if it failed.
        """
        with transaction(self._context.engine) as session:
            round_ = round_at(session, self._context.run_id, index)
            decision = decision_of(session, round_.id)
        if not RoundState(round_.state).is_terminal:
            return
        began, ended = round_.created_at, round_.ended_at or round_.created_at
        tracing.round_ended(
            self._context.run_key,
            index,
            began,
            ended,
            state=round_.state,
            samples=round_.num_samples,
            accepted=round_.num_accepted,
        )
        reasons = [round_.error] if round_.error else decision.reasons if decision else []
        self._progress.round_ended(round_.index, round_.state, reasons)
        self._on_round_end()
        if round_.state == RoundState.FAILED:
            raise RoundFailedError(index=round_.index, reason=round_.error)


@contextmanager
def _decisive(context: RunContext) -> Iterator[Session]:
    """Open a transaction during which nobody else can decide about the run."""
    with transaction(context.engine) as session:
        lock_run(session, context.run_id)
        yield session


def _words(step: Step) -> str:
    """Return the name of a step in words, such as "plan round" for PlanRound."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(step).__name__).lower()


def views_of(session: Session, run_id: int, wanted_reviews: int = 0) -> list[RoundView]:
    """Return the reconciler's view of a run: its open rounds and its latest one."""
    rounds = open_rounds(session, run_id)
    latest = latest_round(session, run_id)
    if latest is not None and latest not in rounds:
        rounds.append(latest)
    return [
        RoundView(
            r.index,
            RoundState(r.state),
            stage_counts(session, r.id),
            _missing_reviews(session, r, wanted_reviews),
        )
        for r in rounds
    ]


def _missing_reviews(session: Session, round_: Round, wanted: int) -> int:
    if not wanted or round_.state != RoundState.CURATING:
        return 0
    return max(0, min(wanted, round_.num_samples) - num_reviewed(session, round_.id))
