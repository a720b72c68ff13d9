"""The coordinator as a service: one coordinator leads a run, others stand by, and workers on any host do the units."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from illume_db.errors import FencedOutError
from illume_loop.errors import RunLockedError, UsageError
from illume_loop.loop.context import RunContext, default_toolbox
from illume_loop.loop.coordinator import Coordinator, Progress, TickResult
from illume_loop.loop.opening import StartInputs, check_start, open_context
from illume_loop.loop.outages import RetryPolicy, reason_of
from illume_loop.loop.prompts import with_domain
from illume_loop.loop.run_directory import RunDirectory, check_path, locked
from illume_loop.settings import ClusterSettings, Settings
from illume_loop.start import RunOutcome, write_run_page
from illume_loop.telemetry.health import STARTING_S, HealthFile
from illume_loop.telemetry.logs import log_context
from illume_loop.telemetry.observing import observed
from illume_workers.dispatch import Dispatcher, Sender
from illume_workers.leadership import Leadership

FIRST_PAUSE_S = 0.02

TICK_S = 120.0
"""Seconds that one tick may take before the coordinator counts as unhealthy; curation of a large round takes tens."""

OPENING_S = 20.0
"""Seconds to wait for the run directory's lock. To open a run takes far less, so a lock that is held for longer belongs
to a process that works inline."""

log = logging.getLogger(__name__)


def start_service(
    settings: Settings,
    run_dir: Path,
    sender: Sender,
    *,
    progress: Progress,
    rounds: int | None = None,
    fresh: bool = False,
    fresh_training: bool = False,
) -> RunOutcome:
    """Coordinate the run in `run_dir` until it has `rounds` rounds; stand by while another coordinator leads.

    The directory's lock is held only while the run is opened. After that, the leadership keeps two coordinators apart,
    because it ends by itself if its host dies. Raises the errors of `start_run`, StageStalledError, and UnhealthyError
    if Postgres or Redis stays away.
    """
    settings = settings.with_rounds(rounds)
    check_path(run_dir, fresh=fresh)
    patience = RetryPolicy(settings.cluster.reconnect_s)
    health = HealthFile(settings.runtime.health_file)
    health.tell("starting", f"opens the run in {run_dir}", STARTING_S)
    settings = patience.run_through(partial(with_domain, settings, run_dir))
    demands = patience.run_through(partial(check_start, settings, run_dir))
    with ExitStack() as stack:
        stack.callback(health.remove)
        directory, context = patience.run_through(lambda: _open(stack, settings, demands, run_dir, fresh_training))
        stack.enter_context(observed(settings.runtime, context.database_url, context.run_id))
        stack.enter_context(log_context(run=context.run_key))
        num_rounds = context.settings.run.rounds
        write = partial(write_run_page, context, directory)
        host = settings.runtime.host_name
        leadership = Leadership(context.engine, context.run_id, settings.cluster.leader_lease_s, host)

        def make_coordinator() -> Coordinator:
            dispatcher = Dispatcher(context, leadership, sender, progress.advanced, num_rounds)
            return Coordinator(
                context,
                progress,
                num_rounds,
                executor=dispatcher,
                on_round_end=write,
                transactions=leadership.transaction,
            )

        lead(leadership, make_coordinator, settings.cluster, health)
        return RunOutcome(run_dir, patience.run_through(write))


def lead(
    leadership: Leadership,
    make_coordinator: Callable[[], Coordinator],
    settings: ClusterSettings,
    health: HealthFile,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Coordinate until nothing is left to do; wait for the leadership first, and again whenever it is lost.

    The health file says `ok` while ticks end in time or another coordinator leads. Raises the coordinator's errors, and
    the database's error if the database stays away.
    """
    patience = RetryPolicy(settings.reconnect_s, sleep)
    longest_s = min(settings.poll_s, settings.leader_lease_s / 3)
    while True:
        _wait_for_leadership(leadership, patience, longest_s, health, sleep)
        leads = f"{leadership.owner} leads"
        health.tell("ok", leads, TICK_S)
        try:
            _tick_until_finished(
                make_coordinator(), patience, longest_s, partial(health.tell, "ok", leads, TICK_S), sleep
            )
            return
        except FencedOutError:
            log.warning("another coordinator took over, standing by")
        finally:
            _release(leadership)


def _open(
    stack: ExitStack, settings: Settings, demands: StartInputs, run_dir: Path, fresh_training: bool
) -> tuple[RunDirectory, RunContext]:
    with _locked_soon(run_dir) as directory:
        # A coordinator loads no model, so this toolbox is never used.
        context = stack.enter_context(
            open_context(settings, demands, directory, default_toolbox(settings.runtime.weights), fresh_training)
        )
        return directory, context


@contextmanager
def _locked_soon(run_dir: Path) -> Iterator[RunDirectory]:
    """Lock the run directory; wait up to OPENING_S, because another coordinator may be opening the run.

    Raises RunLockedError if the lock is still held then.
    """
    deadline = time.monotonic() + OPENING_S
    with ExitStack() as stack:
        while True:
            try:
                directory = stack.enter_context(locked(run_dir))
                break
            except RunLockedError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(FIRST_PAUSE_S)
        yield directory


def _wait_for_leadership(
    leadership: Leadership,
    patience: RetryPolicy,
    longest_s: float,
    health: HealthFile,
    sleep: Callable[[float], object],
) -> None:
    waiting = False
    while not patience.run_through(leadership.acquire):
        health.tell("ok", f"{leadership.owner} stands by, another coordinator leads", TICK_S)
        if not waiting:
            log.info("another coordinator leads this run, standing by")
            waiting = True
        sleep(longest_s)
    log.info("%s leads", leadership.owner)


def _tick_until_finished(
    coordinator: Coordinator,
    patience: RetryPolicy,
    longest_s: float,
    on_tick: Callable[[], object],
    sleep: Callable[[float], object],
) -> None:
    """Call the coordinator's tick until the run is over; pause for longer and longer while nothing moves."""
    pause = FIRST_PAUSE_S
    while True:
        result = patience.run_through(coordinator.tick)
        on_tick()
        match result:
            case TickResult.FINISHED:
                return
            case TickResult.ROUNDS_CHANGED:
                pause = FIRST_PAUSE_S
            case TickResult.UNITS_ADVANCED:
                pause = FIRST_PAUSE_S
                sleep(min(pause, longest_s))
            case TickResult.WAITING:
                sleep(min(pause, longest_s))
                pause *= 2


def _release(leadership: Leadership) -> None:
    try:
        leadership.release()
    except SQLAlchemyError as error:
        # The leadership expires by itself.
        log.warning("could not give up the leadership, the database is away: %s", reason_of(error))


def check_service(settings: Settings) -> None:
    """Raise UsageError if the database or the artifact store cannot be shared by coordinators and workers."""
    if not settings.store.database_url.startswith("postgresql"):
        raise UsageError(
            "The Celery executor needs Postgres: set store.database_url (or ILLUME_STORE__DATABASE_URL) to a"
            " postgresql+psycopg:// URL, the same for the coordinator and every worker."
        )
    if not settings.store.artifacts_url:
        raise UsageError(
            "The Celery executor needs a store that every host reaches: set store.artifacts_url (or"
            " ILLUME_STORE__ARTIFACTS_URL) to a shared folder or an object store."
        )
