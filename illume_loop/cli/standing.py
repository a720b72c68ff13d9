"""Keep a process up that cannot work yet: it says why, waits ever longer, and begins anew.

A restart policy would start such a process again every few seconds for ever, and nobody would see why. So a worker or
coordinator with a health file (`runtime.health_file`, as in docker-compose.yml) stays up instead, unhealthy, with its
sentence in the file and in the log. It begins anew as a fresh process, so changed files and a mended database count.

Only errors that another start would meet again are waited out: usage, what is unhealthy, and conflicts. A process that
hangs, crashes or whose round failed still ends. On a terminal, and where no health file is set, every error ends the
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

from illume_loop.cli.ending import known
from illume_loop.redaction import redact

HEALTH_FILE = "ILLUME_RUNTIME__HEALTH_FILE"
"""Read from the environment itself: the settings may be what cannot be used."""
NUM_WAITS = "_ILLUME_LOOP_NUM_WAITS"
FIRST_PAUSE_S, LONGEST_PAUSE_S = 10.0, 300.0
SLACK_S = 60.0
"""Seconds for which the sentence stays in the file while the process begins anew."""
WAITED_OUT = (2, 3, 4)


@contextmanager
def standing_by(
    sleep: Callable[[float], object] = time.sleep, begin_anew: Callable[[], NoReturn] | None = None
) -> Iterator[None]:
    """Begin this command anew, after a pause, where the block raises what another start would meet again."""
    began = time.monotonic()
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except Exception as error:
        found = known(error)
        path = os.environ.get(HEALTH_FILE)
        if not path or found is None or found.exit_code not in WAITED_OUT or sys.stdin.isatty():
            raise
        worked = time.monotonic() - began > LONGEST_PAUSE_S
        num_waits = 0 if worked else int(os.environ.get(NUM_WAITS, "0"))
        _wait(path, redact(str(found)), pause_after(num_waits), sleep)
        os.environ[NUM_WAITS] = str(num_waits + 1)
        (begin_anew or _begin_anew)()


def pause_after(num_waits: int) -> float:
    """Return the seconds to wait after so many waits in a row: 10, 20, 40, ..., 300."""
    return float(min(FIRST_PAUSE_S * 2 ** min(num_waits, 10), LONGEST_PAUSE_S))


def _wait(path: str, sentence: str, pause_s: float, sleep: Callable[[float], object]) -> None:
    from illume_loop.telemetry.health import HealthFile

    HealthFile(path).tell("unhealthy", sentence, pause_s + SLACK_S)
    # Not to the log: settings that cannot be read have set up none.
    print(f"illume-loop: {sentence} Trying again in {pause_s:.0f} s.", file=sys.stderr, flush=True)
    sleep(pause_s)


def _begin_anew() -> NoReturn:
    """Become a fresh process of the same command, with the same id."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "illume_loop", *sys.argv[1:]])
