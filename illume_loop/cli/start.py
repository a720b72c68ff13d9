"""`illume-loop start`: run the loop, or continue it."""

from __future__ import annotations

import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.exit_codes import ERROR_OPTIONS, INTERRUPTED
from illume_loop.cli.options import DEFAULT_RUN_DIR, Config, RunDir
from illume_loop.cli.output import hint, say
from illume_loop.cli.restarts import restart_with_backoff
from illume_loop.telemetry.libraries import log_to
from illume_loop.telemetry.logs import formatter

if TYPE_CHECKING:
    from illume_loop.loop.coordinator import Progress
    from illume_loop.settings import RuntimeSettings, Settings
    from illume_loop.start import RunOutcome


@restart_with_backoff()
def start(
    config: Config = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    rounds: Annotated[int | None, typer.Option("--rounds", metavar="N", help="Rounds of the run in all.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="S", help="Seed of the run.")] = None,
    executor: Annotated[
        str | None, typer.Option("--executor", metavar="NAME", help="Where units run: inline or celery.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Refuse to continue an existing run.")] = False,
    fresh_training: Annotated[
        bool, typer.Option("--fresh-training", help="Restart an interrupted training without its checkpoints.")
    ] = False,
    no_preflight: Annotated[
        bool, typer.Option("--no-preflight", help="Skip the trial of one prompt through every stage before a new run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the plan, disk use and time of the run; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the dry run as JSON.")] = False,
) -> None:
    """Run the loop in DIR (draw, judge, train, gate), or continue the run that DIR holds."""
    from illume_loop.errors import UsageError

    flags: dict[str, object] = {"run.rounds": rounds, "run.seed": seed, "run.executor": executor}
    if no_preflight:
        flags["run.preflight"] = False
    if dry_run:
        _forecast(config, run_dir, flags, fresh, as_json)
    elif as_json:
        raise UsageError("--json is for --dry-run; to read a run, use `illume-loop rounds ls --json`")
    else:
        _start(config, run_dir, rounds, flags, fresh, fresh_training)


def _forecast(config: Path | None, run_dir: Path, flags: dict[str, object], fresh: bool, as_json: bool) -> None:
    """Print the forecast of the run."""
    from illume_loop.cli.dry_run import show_forecast

    settings = _settings(config, run_dir, flags)
    # A run writes library messages to its log file; a dry run drops them, because it writes no file.
    log_to(logging.NullHandler(), settings.runtime.log_level)
    show_forecast(settings, run_dir, fresh=fresh, as_json=as_json)


def _start(
    config: Path | None,
    run_dir: Path,
    rounds: int | None,
    flags: dict[str, object],
    fresh: bool,
    fresh_training: bool,
) -> None:
    from illume_loop.cli.progress import RunDisplay, open_view
    from illume_loop.runtime import prepare

    settings = _settings(config, run_dir, flags)
    _log_to(run_dir, settings.runtime)
    hint(f"illume-loop: run directory {run_dir} (stop with Ctrl-C at any time; the same command continues)")
    try:
        with open_view() as view:
            display = RunDisplay(view)
            if settings.run.executor == "celery":
                outcome = _serve(settings, run_dir, display, rounds, fresh, fresh_training)
            else:
                from illume_loop.start import start_run

                prepare(settings.runtime)
                outcome = start_run(
                    settings,
                    run_dir,
                    progress=display,
                    rounds=rounds,
                    fresh=fresh,
                    fresh_training=fresh_training,
                    tell=lambda sentence: hint(f"preflight: {sentence}"),
                )
    except KeyboardInterrupt:
        hint(f"\nillume-loop: stopped, no work is lost; continue with `illume-loop start --run-dir {run_dir}`")
        raise typer.Exit(INTERRUPTED) from None
    _summary(run_dir, settings, outcome.page)


def _settings(config: Path | None, run_dir: Path, flags: dict[str, object]) -> Settings:
    """Return the settings of a start: those in the run's row, or with `config` those of the file.

    The file may leave out `[store]`; the run's own values then apply.
    """
    from illume_loop.loop.outages import NO_RETRY, RetryPolicy
    from illume_loop.loop.run_directory import stored_settings
    from illume_loop.settings import load_settings

    own = load_settings(config, flags, only=("run", "store", "cluster"))
    patience = RetryPolicy(own.cluster.reconnect_s) if own.run.executor == "celery" else NO_RETRY
    stored = patience.run_through(lambda: stored_settings(run_dir, own.store.database_url))
    if stored is not None and config is not None:
        stored = {"store": stored["store"]}
    return load_settings(config, flags, stored=stored)


def _serve(
    settings: Settings, run_dir: Path, progress: Progress, rounds: int | None, fresh: bool, fresh_training: bool
) -> RunOutcome:
    """Coordinate the workers; SIGTERM stops like Ctrl-C, so that a standby takes over at once."""
    from illume_workers.sender import CelerySender
    from illume_workers.service import check_service, start_service

    check_service(settings)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sender = CelerySender(settings.cluster)
    return start_service(
        settings, run_dir, sender, progress=progress, rounds=rounds, fresh=fresh, fresh_training=fresh_training
    )


def _summary(run_dir: Path, settings: Settings, page: Path | None) -> None:
    from illume_db.rounds_table import rounds_table
    from illume_loop.cli.rounds_table import print_rounds
    from illume_loop.loop.run_directory import open_run

    with open_run(run_dir, database_url=settings.store.database_url) as run:
        print_rounds(rounds_table(run.session, run.run_id))
    if page is not None:
        say(f"page: {page}")
    hint(f"next: illume-loop rounds show 1 --run-dir {run_dir}   or   illume-loop samples ls --run-dir {run_dir}")


class _RunLog(logging.FileHandler):
    """A log file in the run directory; lines before the directory exists are dropped."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir / "run.log", encoding="utf-8", delay=True)

    def emit(self, record: logging.LogRecord) -> None:
        if Path(self.baseFilename).parent.is_dir():
            super().emit(record)


def _log_to(run_dir: Path, runtime: RuntimeSettings) -> None:
    ERROR_OPTIONS.run_dir = run_dir
    handler = _RunLog(run_dir)
    handler.setFormatter(formatter(runtime.log_format))
    log_to(handler, runtime.log_level)
