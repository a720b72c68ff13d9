"""The coordinator: reads what the database holds, asks the reconciler for the next step, and takes it.

Guarantee: it keeps no state of its own. Each step is one transaction (or one unit, whose effect is one transaction),
so a coordinator killed at any point leaves a database from which the next one continues to the same manifests.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sqlalchemy.orm import Session

from illume_db.reviews import num_reviewed
from illume_db.rounds import decision_of, latest_round, open_rounds, round_at, round_of, rounds_in_all
from illume_db.rounds_table import stage_of
from illume_db.runs import hold_run
from illume_db.sessions import transaction
from illume_db.tables import Round
from illume_db.units import UnitRow, stage_counts
from illume_loop.config import Settings
from illume_loop.errors import RoundFailedError
from illume_loop.loop import steps
from illume_loop.loop.executor import Executor
from illume_loop.loop.inline import InlineExecutor
from illume_loop.loop.opening import check_demands, open_workbench
from illume_loop.loop.preflight import preflight_of_settings
from illume_loop.loop.progress import Progress, StageProgress
from illume_loop.loop.prompting import with_domain
from illume_loop.loop.reconcile import AwaitReviews, Issue, RoundView, Step, reconcile
from illume_loop.loop.run_directory import RunDirectory, check_path, locked, stored_settings
from illume_loop.loop.states import RoundState
from illume_loop.loop.workbench import Toolbox, Workbench, default_toolbox
from illume_loop.telemetry import tracing
from illume_loop.telemetry.logs import at_hand
from illume_loop.telemetry.observing import observed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a start ended: the run's directory, and its page."""

    run_dir: Path
    page: Path


def start_run(
    settings: Settings,
    run_dir: Path,
    *,
    progress: Progress,
    rounds: int | None = None,
    fresh: bool = False,
    fresh_training: bool = False,
    toolbox: Toolbox | None = None,
    tell: Callable[[str], None] = log.info,
) -> RunOutcome:
    """Run the loop in `run_dir` until it has `rounds` rounds (in the place of settings.run.rounds); continue a run.

    A new run first tries one prompt through every stage, unless run.preflight is off; `tell` hears sentences about it.

    With `fresh_training` a training that was cut off begins anew. Raises PreflightError where a stage cannot work,
    RoundFailedError when a round failed (the next start goes on with the next round), RunLockedError, RunExistsError,
    SettingsChangedError, UsageError for settings that the domain cannot meet, and UnhealthyError for full disks and
    damaged artifacts, after which the same call continues.
    """
    settings = settings.with_rounds(rounds)
    check_path(run_dir, fresh=fresh)
    settings = with_domain(settings, run_dir)
    demands = check_demands(settings, run_dir)
    tools = toolbox or default_toolbox(settings.runtime.weights)
    if settings.run.preflight and stored_settings(run_dir, settings.store.database_url) is None:
        tell("trying one prompt through every stage before anything is made (--no-preflight leaves this out)")
        for note in preflight_of_settings(settings, demands.prompts, tools.load_model):
            tell(note)
    with (
        locked(run_dir) as directory,
        open_workbench(settings, demands, directory, tools, fresh_training) as bench,
        observed(settings.runtime, bench),
        at_hand(run=bench.run_key),
    ):
        Coordinator(bench, directory, progress, bench.settings.run.rounds).run()
        return RunOutcome(run_dir, write_run_page(bench, directory))


class Turn(StrEnum):
    """What a tick found."""

    OVER = "over"
    CHANGED = "changed"
    MOVED = "moved"
    WAITING = "waiting"


REVIEW_POLL_S = 0.5
"""Seconds between two looks at whether people have reviewed enough; nothing else is ever waited for inline."""

Transactions = Callable[[], AbstractContextManager[Session]]


class Coordinator:
    """Turns rounds until there are enough."""

    def __init__(
        self,
        bench: Workbench,
        directory: RunDirectory,
        progress: Progress,
        num_rounds: int,
        *,
        executor: Executor | None = None,
        transactions: Transactions | None = None,
    ) -> None:
        """The default executor is the inline one; `transactions` are those in which steps are taken."""
        self._bench = bench
        self._directory = directory
        self._progress = progress
        self._num_rounds = self._in_all = num_rounds
        self._executor: Executor = executor or InlineExecutor(bench, self._unit_advanced)
        self._transaction: Transactions = transactions or (lambda: _decisive(bench))
        self._awaited: AwaitReviews | None = None
        self._open: set[int] = set()
        """Rounds that were under way at the last tick: it tells which of them a person has cancelled since."""

    def run(self) -> None:
        """Tick until nothing is missing. Raises RoundFailedError at a round that fails."""
        while (turn := self.tick()) is not Turn.OVER:
            if turn is Turn.WAITING:
                time.sleep(REVIEW_POLL_S)

    def tick(self) -> Turn:
        """Take the changes that are due, or else bring units forward."""
        with self._transaction() as session:
            views = views_of(session, self._bench.run_id, self._bench.settings.curate.reviews)
            cancelled = self._cancelled(session, views)
            steps_due = self._steps_due(session, views)
            changes = [step for step in steps_due if not isinstance(step, Issue | AwaitReviews)]
            for step in changes:
                with tracing.span(_words(step), self._bench.run_key, step.index):
                    steps.carry_out(self._bench, session, step)
        for index in cancelled:
            self._report_end(index)
        if not steps_due:
            return Turn.OVER
        for step in changes:
            self._report_end(step.index)
        if changes:
            return Turn.CHANGED
        for awaited in [step for step in steps_due if isinstance(step, AwaitReviews)]:
            self._tell_awaited(awaited)
        issues = [step for step in steps_due if isinstance(step, Issue)]
        return Turn.MOVED if self._executor.issue(issues) else Turn.WAITING

    def _steps_due(self, session: Session, views: Sequence[RoundView]) -> list[Step]:
        loop = self._bench.settings.loop
        self._in_all = rounds_in_all(session, self._bench.run_id, self._num_rounds)
        return reconcile(views, self._in_all, loop.overlap_rounds, loop.dead_unit_tolerance)

    def _cancelled(self, session: Session, views: Sequence[RoundView]) -> list[int]:
        """Return the rounds that were cancelled since the last tick."""
        now_open = {view.index for view in views if not view.state.is_terminal}
        gone, self._open = sorted(self._open - now_open), now_open
        rounds = [round_at(session, self._bench.run_id, index) for index in gone]
        return [round_.index for round_ in rounds if round_.state == RoundState.CANCELLED]

    def _unit_advanced(self, unit: UnitRow, done: int, total: int) -> None:
        """A unit went on by `done` of its `total` items, which count beside those of its like that are finished."""
        with transaction(self._bench.engine) as session:
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
            wanted = self._bench.settings.curate.reviews
            done = max(0, wanted - step.missing)
            self._progress.advanced(StageProgress(step.index, self._in_all, "waiting for reviews", done, wanted))

    def _report_end(self, index: int) -> None:
        """Where the round has ended: tell it, write the page, and raise if it failed."""
        with transaction(self._bench.engine) as session:
            round_ = round_at(session, self._bench.run_id, index)
            decision = decision_of(session, round_.id)
        if not RoundState(round_.state).is_terminal:
            return
        began, ended = round_.created_at, round_.ended_at or round_.created_at
        tracing.round_ended(
            self._bench.run_key,
            index,
            began,
            ended,
            state=round_.state,
            samples=round_.num_samples,
            accepted=round_.num_accepted,
        )
        reasons = [round_.error] if round_.error else decision.reasons if decision else []
        self._progress.round_ended(round_.index, round_.state, reasons)
        write_run_page(self._bench, self._directory)
        if round_.state == RoundState.FAILED:
            raise RoundFailedError(index=round_.index, reason=round_.error)


@contextmanager
def _decisive(bench: Workbench) -> Iterator[Session]:
    """Open a transaction that nobody else decides about the run in."""
    with transaction(bench.engine) as session:
        hold_run(session, bench.run_id)
        yield session


def _words(step: Step) -> str:
    """ "plan round" for PlanRound."""
    return re.sub(r"(?<!^)(?=[A-Z])", " ", type(step).__name__).lower()


def views_of(session: Session, run_id: int, wanted_reviews: int = 0) -> list[RoundView]:
    """What the reconciler sees of a run: its open rounds and its latest one."""
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


def write_run_page(bench: Workbench, directory: RunDirectory) -> Path:
    """Write the page of the run; its path."""
    from illume_loop.report.page import write_page

    with transaction(bench.engine) as session:
        return write_page(session, bench.run_id, directory.path, bench.images)
