"""Forks real processes of the command line from one that has imported everything, because imports take most of a run.

    python -m tests.chaos.nursery

Reads one request a line (JSON) and answers each with one line. `{"argv", "env", "log", "at"}` forks a process that runs
`illume-loop` with those arguments, in a session of its own, and answers with its pid; `{}` answers with the processes
that have ended since, as [pid, return code]. A process may be told to signal itself at a numbered point (`"at": [point,
signal]`): a point lies before every commit, at every begin of a transaction (so after the commit before it), and before
every rename (an artifact is written and not yet in its place); those of a worker's heartbeats are not counted, so most
points lie within a unit. `"clock"` shifts the clock of the process by so many seconds, as far as Python asks for the
time. The processes end with this one.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import threading
import warnings
from importlib import import_module
from itertools import count
from typing import Any

from tests.chaos import clock  # before all that takes the time

PR_SET_PDEATHSIG = 1
WARM = (
    "celery.app.amqp",
    "celery.bin.worker",
    "celery.concurrency.solo",
    "celery.worker.worker",
    "kombu.transport.redis",
    "psycopg",
    "illume_loop.cli.main",
    "illume_loop.start",
    "illume_loop.report.page",
    "illume_workers.sender",
    "illume_workers.process",
)


def main() -> None:
    """See the module."""
    _warm_up()
    for line in sys.stdin:
        request = json.loads(line)
        answer: Any = _fork(request) if request else _ended()
        print(json.dumps(answer), flush=True)


def _warm_up() -> None:
    """Import and compute once what every process would."""
    # Compiled modules notice that the class is another one, and are content with it.
    warnings.filterwarnings("ignore", message="datetime.datetime size changed")
    for module in WARM:
        import_module(module)
    from illume_loop.domains.shapes.domain import ShapesDomain
    from illume_loop.protocols import Sampling
    from tests.support.canned_model import CannedModel

    domain = ShapesDomain()
    prompts = [prompt for split in ("train", "heldout") for prompt in domain.prompts(split, 8, 0)]
    model = CannedModel(0.5)
    ids_BL = model.sample([prompt.text for prompt in prompts], [*range(len(prompts))], Sampling())
    model.log_likelihood(model.decode(ids_BL), [prompt.text for prompt in prompts])
    domain.reading_probes(8, 0)


def _ended() -> list[tuple[int, int]]:
    ended = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, os.waitstatus_to_exitcode(status)))


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        _become(request)
        from illume_loop.cli.main import main as illume_loop

        illume_loop()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for here, there in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(here, there)
    random.seed()
    os.environ.update(request["env"])
    sys.argv = ["illume-loop", *request["argv"]]
    clock.shift(request.get("clock", 0.0))
    if request.get("at"):
        _signal_at(*request["at"])


def _signal_at(point: int, number: int) -> None:
    from sqlalchemy import Engine, event

    points = count(1)  # atomic: images are written, and so renamed, by several threads

    def at_point(*_: object) -> None:
        if threading.current_thread().name != "heartbeat" and next(points) == point:
            print(f"point {point}: signal {signal.Signals(number).name}", file=sys.stderr, flush=True)
            os.kill(os.getpid(), number)

    event.listen(Engine, "commit", at_point)
    event.listen(Engine, "begin", at_point)
    sys.addaudithook(lambda name, _: at_point() if name == "os.rename" else None)


if __name__ == "__main__":
    main()
