"""Restarts a worker or coordinator that cannot work yet, with backoff: it reports the reason, waits, and restarts.

Without this, a container's restart policy would restart such a process every few seconds, and nobody would see the
reason. A worker or coordinator with a health file (`runtime.health_file`, as in docker-compose.yml) stays up as
unhealthy, with the reason in the file and on stderr. It restarts as a fresh process, so that changed files and a
repaired database take effect.

Only the errors usage, unhealthy and conflict lead to a restart, because a container would meet them again. A process
that hangs or crashes, or whose round failed, still ends. On a terminal, and without a health file, every error ends the
command.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

import typer

from illume_loop.cli.exit_codes import known_error
from illume_loop.redaction import redact

HEALTH_FILE = "ILLUME_RUNTIME__HEALTH_FILE"
"""The variable of the health file; it is read directly, because the settings themselves may be invalid."""
NUM_RESTARTS = "_ILLUME_LOOP_NUM_RESTARTS"
FIRST_BACKOFF_S, MAX_BACKOFF_S = 10.0, 300.0
RESTART_S = 60.0
"""The seconds that the reason stays valid in the file while the process restarts."""
RESTARTABLE_EXIT_CODES = (2, 3, 4)


@contextmanager
def restart_with_backoff(
    sleep: Callable[[float], object] = time.sleep, restart: Callable[[], NoReturn] | None = None
) -> Iterator[None]:
    """Restart this command after a backoff if the block raises an error that would recur at a restart."""
    began = time.monotonic()
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        found = known_error(error)
        path = os.environ.get(HEALTH_FILE)
        if not path or found is None or found.exit_code not in RESTARTABLE_EXIT_CODES or sys.stdin.isatty():
            raise
        worked = time.monotonic() - began > MAX_BACKOFF_S
        num_restarts = 0 if worked else int(os.environ.get(NUM_RESTARTS, "0"))
        _wait(path, redact(str(found)), backoff_s(num_restarts), sleep)
        os.environ[NUM_RESTARTS] = str(num_restarts + 1)
        (restart or _restart_process)()


def backoff_s(num_restarts: int) -> float:
    """Return the seconds to wait after `num_restarts` restarts in a row: 10, 20, 40, ..., 300."""
    return float(min(FIRST_BACKOFF_S * 2 ** min(num_restarts, 10), MAX_BACKOFF_S))


def _wait(path: str, sentence: str, pause_s: float, sleep: Callable[[float], object]) -> None:
    from illume_loop.telemetry.health import HealthFile

    HealthFile(path).tell("unhealthy", sentence, pause_s + RESTART_S)
    # Print instead of logging: with invalid settings, no log is set up.
    print(f"illume-loop: {sentence} Trying again in {pause_s:.0f} s.", file=sys.stderr, flush=True)
    sleep(pause_s)


def _restart_process() -> NoReturn:
    """Replace this process by a fresh one of the same command, with the same process id."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "illume_loop", *sys.argv[1:]])
