"""`illume-loop worker`: run a worker; `illume-loop workers`: list workers, drain one, check their health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, Config, RunDir
from illume_loop.cli.output import hint, print_json, print_table
from illume_loop.cli.restarts import restart_with_backoff

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from sqlalchemy.orm import Session

    from illume_loop.settings import Settings

app = typer.Typer(help="List workers, drain one, or check their health.", no_args_is_help=True)

COLUMNS = ("worker", "role", "host", "device", "model", "items", "progress", "heartbeat", "state", "unit")
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="Name of the worker.")]


@restart_with_backoff()
def worker(
    role: Annotated[
        list[str] | None,
        typer.Option("--role", metavar="ROLE", help="generator, assessor or trainer; repeatable."),
    ] = None,
    config: Config = None,
    name: Name = None,
) -> None:
    """Run a worker until it is stopped.

    On SIGTERM it finishes its unit, or gives the unit back at the deadline.
    Exit codes: 0 after `workers drain`, 143 after SIGTERM, 130 after Ctrl-C, 3 if this worker is unhealthy.
    """
    import logging

    from illume_loop.loop.context import default_toolbox
    from illume_loop.runtime import prepare
    from illume_loop.settings import load_settings
    from illume_loop.telemetry.libraries import log_to
    from illume_loop.telemetry.logs import formatter
    from illume_workers.process import run_worker

    settings = load_settings(config)
    lines = logging.StreamHandler()
    lines.setFormatter(formatter(settings.runtime.log_format))
    log_to(lines, settings.runtime.log_level)
    prepare(settings.runtime)
    raise typer.Exit(run_worker(settings, role or [], default_toolbox(settings.runtime.weights), name))


@app.command("ls")
def ls(run_dir: RunDir = DEFAULT_RUN_DIR, config: Config = None, as_json: AsJson = False) -> None:
    """List the workers, and the queue of each role."""
    from illume_db.workers import queue_table, workers_table

    with _reading(_settings(run_dir, config)) as session:
        workers, queues = workers_table(session), queue_table(session)
    if as_json:
        print_json({"workers": workers, "queues": queues})
        return
    print_table("workers (ages in seconds)", COLUMNS, map(_cells, workers))
    cells = ([row["role"], str(row["depth"]), str(row["leased"]), _age(row["oldest_age_s"])] for row in queues)
    print_table("queues (age in seconds)", ("role", "waiting", "in progress", "oldest"), cells)
    hint("next: illume-loop workers drain NAME")


@app.command("drain")
def drain(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Worker, as in `workers ls`.")],
    run_dir: RunDir = DEFAULT_RUN_DIR,
    config: Config = None,
) -> None:
    """Let a worker finish its unit and exit."""
    from illume_db.sessions import open_engine, transaction
    from illume_db.workers import request_drain
    from illume_loop.errors import NotFoundError

    engine = open_engine(_settings(run_dir, config).store.database_url)
    try:
        with transaction(engine) as session:
            asked = request_drain(session, name)
    finally:
        engine.dispose()
    if not asked:
        raise NotFoundError(kind="worker at work", name=name)
    hint(f"{name} takes no further unit and exits when its unit is done; see `illume-loop workers ls`")


@app.command("health")
def health(
    name: Name = None, run_dir: RunDir = DEFAULT_RUN_DIR, config: Config = None, as_json: AsJson = False
) -> None:
    """Check the heartbeat of a worker, or without --name of any worker on this host; exit 3 if there is none."""
    from illume_db.workers import workers_table
    from illume_loop.errors import NoWorkerError
    from illume_loop.host import host_name

    settings = _settings(run_dir, config)
    host = host_name(settings.runtime.host_name)
    with _reading(settings) as session:
        rows = [row for row in workers_table(session) if _is_meant(row, name, host)]
    # One heartbeat may be late, and a restart of the database can delay a second one.
    fresh = [row for row in rows if row["heartbeat_age_s"] <= 3 * settings.cluster.heartbeat_s + 5]
    alive = [row for row in fresh if row["state"] in ("running", "draining")]
    if as_json:
        print_json({"ok": bool(alive), "workers": rows})
    if not alive:
        raise NoWorkerError(who=f"No worker {name or 'of host ' + host} has sent a heartbeat lately")
    if not as_json:
        hint(f"{', '.join(row['name'] for row in alive)} is alive")


def _is_meant(row: dict[str, Any], name: str | None, host: str) -> bool:
    return bool(row["name"] == name if name else row["host"] == host)


def _settings(run_dir: Path, config: Path | None) -> Settings:
    """Return the settings with the database's URL, from the file, the environment or the run. Raises UsageError."""
    from illume_loop.cli.runs import settings_for
    from illume_loop.errors import UsageError
    from illume_loop.settings import load_settings

    settings = load_settings(config) if config else settings_for(run_dir)
    if not settings.store.database_url:
        raise UsageError(
            "Workers need a Postgres database: set store.database_url (or ILLUME_STORE__DATABASE_URL) to the service's."
        )
    return settings


def _reading(settings: Settings) -> AbstractContextManager[Session]:
    from contextlib import contextmanager

    from sqlalchemy.orm import Session

    from illume_db.migrate import current, head
    from illume_db.sessions import open_engine
    from illume_loop.errors import DatabaseOutdatedError

    url = settings.store.database_url

    @contextmanager
    def reading() -> Iterator[Session]:
        found, expected = current(url), head()
        if found != expected:
            raise DatabaseOutdatedError(found=found or "(none)", expected=expected)
        engine = open_engine(url, read_only=True)
        try:
            with Session(engine) as session:
                yield session
        finally:
            engine.dispose()

    return reading()


def _cells(row: dict[str, Any]) -> list[str | None]:
    return [
        row["name"],
        row["role"],
        row["host"],
        row["device"],
        row["model_version"],
        str(row["items_done"]),
        _age(row["progress_age_s"]),
        _age(row["heartbeat_age_s"]),
        row["state"],
        row["unit"],
    ]


def _age(seconds: float | None) -> str | None:
    return None if seconds is None else f"{seconds:.1f}"
