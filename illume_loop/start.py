"""Start or continue a run in this process: preflight, coordinator, and the page of the run."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from illume_db.sessions import transaction
from illume_loop.loop.context import RunContext, Toolbox, default_toolbox
from illume_loop.loop.coordinator import Coordinator, Progress
from illume_loop.loop.opening import check_start, open_context
from illume_loop.loop.preflight import preflight_of_settings
from illume_loop.loop.prompts import with_domain
from illume_loop.loop.run_directory import RunDirectory, check_path, locked, stored_settings
from illume_loop.report.page import write_page
from illume_loop.settings import Settings
from illume_loop.telemetry.logs import log_context
from illume_loop.telemetry.observing import observed

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of a start: the run's directory, and the path of its page."""

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
    """Start a run in `run_dir`, or continue it, until it has `rounds` rounds.

    If `rounds` is None, settings.run.rounds holds. A new run first tries one prompt through every stage, unless
    run.preflight is off; `tell` is called with sentences about it. With `fresh_training`, a training that was cut off
    begins again.

    Raises PreflightError if a stage cannot work, RoundFailedError if a round failed (the next start continues with the
    next round), RunLockedError, RunExistsError, SettingsChangedError, UsageError for settings that the domain cannot
    meet, and UnhealthyError for full disks and damaged artifacts, after which the same call continues.
    """
    settings = settings.with_rounds(rounds)
    check_path(run_dir, fresh=fresh)
    settings = with_domain(settings, run_dir)
    demands = check_start(settings, run_dir)
    tools = toolbox or default_toolbox(settings.runtime.weights)
    if settings.run.preflight and stored_settings(run_dir, settings.store.database_url) is None:
        tell("trying one prompt through every stage before anything is made (--no-preflight leaves this out)")
        for note in preflight_of_settings(settings, demands.prompts, tools.load_model):
            tell(note)
    with (
        locked(run_dir) as directory,
        open_context(settings, demands, directory, tools, fresh_training) as context,
        observed(settings.runtime, context.database_url, context.run_id),
        log_context(run=context.run_key),
    ):
        write = partial(write_run_page, context, directory)
        Coordinator(context, progress, context.settings.run.rounds, on_round_end=write).run()
        return RunOutcome(run_dir, write())


def write_run_page(context: RunContext, directory: RunDirectory) -> Path:
    """Write the page of the run; return its path."""
    with transaction(context.engine) as session:
        return write_page(session, context.run_id, directory.path, context.images)
