"""The coordinator: reads what the database holds, asks the reconciler for the next step, and takes it.

Guarantee: it keeps no state of its own. Each step is one transaction (or one unit, whose effect is one transaction),
so a coordinator killed at any point leaves a database from which the next one continues to the same manifests.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from db.models import Round
from db.queries import progress as reads
from db.queries.progress import UnitRow
from db.queries.rounds import STAGE_OF_KIND
from db.sessions import transaction
from illume_loop.config import Settings
from illume_loop.errors import RoundFailedError
from illume_loop.loop import steps
from illume_loop.loop.executor import Executor
from illume_loop.loop.inline import InlineExecutor
from illume_loop.loop.opening import check_demands, open_workbench
from illume_loop.loop.progress import Progress, StageProgress
from illume_loop.loop.reconcile import Curate, Decide, GiveUp, Issue, Move, PlanGate, PlanRound, RoundView, reconcile
from illume_loop.loop.run_directory import RunDirectory, check_path, locked
from illume_loop.loop.states import RoundState
from illume_loop.loop.workbench import Toolbox, Workbench, default_toolbox


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
    toolbox: Toolbox | None = None,
) -> RunOutcome:
    """Run the loop in `run_dir` until it has `rounds` rounds (default: settings.run.rounds); continue what is there.

    Raises RoundFailedError when a round failed (the next start goes on with the next round), RunLockedError,
    RunExistsError, SettingsChangedError, UsageError for settings that the domain cannot meet, and UnhealthyError for
    full disks and damaged artifacts, after which the same call continues.
    """
    num_rounds = rounds or settings.run.rounds
    check_path(run_dir, fresh=fresh)
    demands = check_demands(settings, run_dir)
    with (
        locked(run_dir) as directory,
        open_workbench(settings, demands, directory, toolbox or default_toolbox()) as bench,
    ):
        Coordinator(bench, directory, progress, num_rounds).run()
        return RunOutcome(run_dir, _write_page(bench, directory))


class Coordinator:
    """Turns rounds until there are enough."""

    def __init__(self, bench: Workbench, directory: RunDirectory, progress: Progress, num_rounds: int) -> None:
        self._bench = bench
        self._directory = directory
        self._progress = progress
        self._num_rounds = num_rounds
        self._executor: Executor = InlineExecutor(bench, self._unit_advanced)

    def run(self) -> None:
        """Tick until nothing is missing. Raises RoundFailedError at a round that fails."""
        while self.tick():
            pass

    def tick(self) -> bool:
        """Take one step; False when there is none left."""
        with transaction(self._bench.engine) as session:
            round_ = reads.latest_round(session, self._bench.run_id)
            view = None if round_ is None else _view(session, round_)
            step = reconcile(view, self._num_rounds)
            match step:
                case None:
                    return False
                case PlanRound(index):
                    steps.plan_round(self._bench, session, index)
                    return True
        assert round_ is not None, "every other step is one within a round"
        assert view is not None
        match step:
            case Issue(units):
                self._executor.issue(units)
                self._unit_advanced(units[0], 0, 0)
            case _:
                self._change(round_, step)
                self._report_end(round_.id)
        return True

    def _change(self, round_: Round, step: Move | Curate | PlanGate | Decide | GiveUp) -> None:
        with transaction(self._bench.engine) as session:
            match step:
                case Move(target):
                    steps.move(self._bench, session, round_, target)
                case Curate():
                    steps.curate(self._bench, session, round_)
                case PlanGate():
                    steps.plan_gate(self._bench, session, round_)
                case Decide():
                    steps.decide(self._bench, session, round_)
                case GiveUp(unit):
                    steps.give_up(self._bench, session, round_, unit)

    def _unit_advanced(self, unit: UnitRow, done: int, total: int) -> None:
        """A unit went on by `done` of its `total` items, which count beside those of its like that are finished."""
        if unit.kind != "train":
            with transaction(self._bench.engine) as session:
                alike = [u for u in reads.units_of(session, unit.round_id) if u.kind == unit.kind]
            done += sum(_num_items(u) for u in alike if u.state == "done")
            total = sum(_num_items(u) for u in alike)
        if total:
            event = StageProgress(unit.round_index, self._num_rounds, STAGE_OF_KIND[unit.kind], done, total)
            self._progress.advanced(event)

    def _report_end(self, round_id: int) -> None:
        """Where the round has ended: tell it, write the page, and raise if it failed."""
        with transaction(self._bench.engine) as session:
            round_ = reads.round_of(session, round_id)
            decision = reads.decision_of(session, round_id)
        if not RoundState(round_.state).is_terminal:
            return
        reasons = [round_.error] if round_.error else decision.reasons if decision else []
        self._progress.round_ended(round_.index, round_.state, reasons)
        _write_page(self._bench, self._directory)
        if round_.state == RoundState.FAILED:
            raise RoundFailedError(index=round_.index, reason=round_.error)


def _view(session: Session, round_: Round) -> RoundView:
    return RoundView(round_.index, RoundState(round_.state), reads.units_of(session, round_.id))


def _num_items(unit: UnitRow) -> int:
    return int(unit.payload.get("count") or unit.payload["stop"] - unit.payload["first"])


def _write_page(bench: Workbench, directory: RunDirectory) -> Path:
    from illume_loop.report.page import write_page

    with transaction(bench.engine) as session:
        return write_page(session, bench.run_id, directory.path, bench.images)
