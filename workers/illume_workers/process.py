"""A worker process: it takes messages from the queues of its roles, one at a time, until it is drained or unhealthy.

SIGTERM and SIGINT drain the worker: the current unit is finished, or handed back at the deadline. A signal reaches the
heartbeat through a file descriptor, because Python runs no signal handler while the main thread is deep in a call.

Exit codes: 0 after `workers drain`, 143 after SIGTERM, 130 after SIGINT, 3 if the worker is unhealthy. A container with
the restart policy `on-failure` therefore comes back after a restart of the host and stays down after `workers drain`.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from illume_db.migrate import current, head
from illume_db.sessions import open_engine, transaction
from illume_db.workers import mark_stopped, register_worker
from illume_loop.errors import BrokerUnusableError, DatabaseOutdatedError, UnhealthyError
from illume_loop.host import host_name, process_name
from illume_loop.loop.context import Toolbox
from illume_loop.loop.outages import RetryPolicy, reason_of
from illume_loop.settings import Settings
from illume_loop.telemetry.health import STARTING_S, HealthFile
from illume_loop.telemetry.logs import log_context
from illume_loop.telemetry.observing import check_telemetry, observed
from illume_workers.app import TASK, make_app
from illume_workers.contexts import RunContexts
from illume_workers.heartbeat import EXIT_DONE, EXIT_UNHEALTHY, Heartbeat
from illume_workers.messages import KINDS_OF_ROLE, BadMessageError, checked_roles, parse, queue_of
from illume_workers.service import check_service
from illume_workers.slots import default_cache, device_for, held_slot, num_visible_devices
from illume_workers.unit_runner import UnitRunner

if TYPE_CHECKING:
    from celery import Celery


NOISY_LOGGERS = ("alembic", "celery.worker.strategy", "celery.app.trace")
"""Loggers that write a line for every message; our own log lines report the outcome of each unit."""

SIGNAL_EXIT_BASE = 128
"""A signal's exit code is its number plus this, as shells and containers report a process that a signal ended."""

log = logging.getLogger(__name__)


def default_name(roles: Sequence[str], host: str) -> str:
    """Return a name made of roles, host and process, which is unique among live workers."""
    return f"{'+'.join(roles)}@{process_name(host)}"


def run_worker(settings: Settings, roles: Sequence[str], toolbox: Toolbox, name: str | None = None) -> int:
    """Serve until the worker is drained; return the exit code.

    Raises UsageError for settings or roles that cannot be served. Raises UnhealthyError if the worker has to end and
    may be started again.
    """
    roles = checked_roles(roles)
    check_service(settings)
    check_telemetry(settings.runtime)
    name = name or default_name(roles, host_name(settings.runtime.host_name))
    health = HealthFile(settings.runtime.health_file)
    health.tell("starting", f"{name} starts", STARTING_S)
    cache = Path(settings.cluster.cache_dir) if settings.cluster.cache_dir else default_cache()
    app = make_app(settings.cluster)
    for logger in NOISY_LOGGERS:
        logging.getLogger(logger).setLevel(logging.WARNING)
    with held_slot(cache) as slot, _engine(settings) as engine:
        device = device_for(settings.runtime.device, slot.number, num_visible_devices())
        _register(engine, settings, name, roles, device)
        kinds = frozenset(kind for role in roles for kind in KINDS_OF_ROLE[role])
        heartbeat = Heartbeat(engine, name, settings.cluster, kinds, stop=_stop_taking, end=os._exit, health=health)
        contexts = RunContexts(
            engine,
            settings,
            toolbox,
            device=device,
            cache=cache,
            scratch=slot.scratch,
            on_load=lambda sha256: runner.loaded(sha256),
            on_progress=heartbeat.progressed,
        )
        runner = UnitRunner(engine, settings, contexts, heartbeat, name=name, kinds=kinds)
        state = "unhealthy"
        try:
            with (
                _signals_to(heartbeat),
                observed(settings.runtime, database_url=settings.store.database_url),
                log_context(worker=name),
            ):
                heartbeat.start()
                log.info("worker %s serves %s on %s", name, ", ".join(roles), device)
                _consume(app, runner, [queue_of(role) for role in roles], name, settings)
            state = "stopped"
        finally:
            heartbeat.close()
            health.remove()
            _record_end(engine, name, state)
        return heartbeat.exit_code


def _consume(app: Celery, runner: UnitRunner, queues: list[str], name: str, settings: Settings) -> None:
    """Take messages until the worker is asked to stop. Raises the error that ended it otherwise."""
    from celery.worker import WorkController

    failures: list[Exception] = []

    def unit(*arguments: object, **payload: object) -> None:
        try:
            runner.attend(parse(arguments, payload))
        except BadMessageError as error:
            log.error("dropped a message: %s", error)
        except (UnhealthyError, SQLAlchemyError) as error:
            failures.append(error)
            _stop_taking(EXIT_UNHEALTHY)
        except Exception:
            # Errors of the unit itself are handled before, so this is a fault in this code. The unit's lease runs
            # out, which counts as a failed attempt.
            log.exception("a unit was left undone")

    # `parse` checks the arguments, so Celery's own check is off.
    app.task(name=TASK, typing=False, Request="illume_workers.app:UnitRequest")(unit)
    controller: Any = WorkController(
        app=app,
        hostname=f"worker@{name}",
        queues=queues,
        pool_cls="solo",
        concurrency=1,
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
    )
    controller.start()
    if failures:
        raise failures[0]
    if controller.exitcode:
        raise BrokerUnusableError(url=app.connection_for_read().as_uri(), seconds=settings.cluster.reconnect_s)


def _stop_taking(code: int = EXIT_DONE) -> None:
    """Ask Celery's consumer to end when the current unit is over."""
    from celery.worker import state

    state.should_stop = code


@contextmanager
def _engine(settings: Settings) -> Iterator[Engine]:
    url = settings.store.database_url
    patience = RetryPolicy(settings.cluster.reconnect_s)
    found, expected = patience.run_through(lambda: current(url)), head()
    if found != expected:
        raise DatabaseOutdatedError(found=found or "(none)", expected=expected)
    engine = open_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


def _register(engine: Engine, settings: Settings, name: str, roles: Sequence[str], device: str) -> None:
    host = host_name(settings.runtime.host_name)

    def register() -> None:
        with transaction(engine) as session:
            register_worker(
                session,
                name=name,
                host=host,
                pid=os.getpid(),
                roles=roles,
                device=device,
                heartbeat_s=settings.cluster.heartbeat_s,
            )

    RetryPolicy(settings.cluster.reconnect_s).run_through(register)


def _record_end(engine: Engine, name: str, state: str) -> None:
    try:
        with transaction(engine) as session:
            mark_stopped(session, name, state)
    except SQLAlchemyError as error:
        log.warning("could not say goodbye, the database is away: %s", reason_of(error))


@contextmanager
def _signals_to(heartbeat: Heartbeat) -> Iterator[None]:
    """Drain the worker at SIGTERM and SIGINT, whatever the main thread is doing."""
    reading, writing = socket.socketpair()
    writing.setblocking(False)

    def listen() -> None:
        while number := reading.recv(1):
            heartbeat.drain(SIGNAL_EXIT_BASE + number[0])

    numbers = (signal.SIGTERM, signal.SIGINT)
    # The handlers do nothing, but the interpreter writes a signal's number to the descriptor only if it has a handler.
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    previous = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    Thread(target=listen, name="signals", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous)
        for number, handler in before.items():
            signal.signal(number, handler)
        writing.close()
