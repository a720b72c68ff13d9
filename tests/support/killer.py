"""Runs the canned loop in processes that kill themselves with SIGKILL at numbered points.

    python -m tests.support.killer BASE FOLDER SEED POINTS [SETTING=VALUE ...]

A point lies before every commit, at every begin of a transaction (so after the commit before it), and before every
rename (an artifact is written and not yet in its place). Points are spread over the run by a seed; each is one run in
its own directory, killed there, then continued to its end. In the chain one run is killed again and again. Prints the
result of each run as one line of JSON. Processes are forked, because starting Python anew would take most of the time.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random

from sqlalchemy import Engine, event

from illume_loop.loop.context import default_toolbox
from illume_loop.settings import Settings
from tests.support.canned_run import result, small_settings, start

NEVER = sys.maxsize
CHAIN_REACH = 120
"""Longest way between two kills of a chain, in points; a quarter of the run where that is longer."""


def main(base: Path, folder: Path, seed: str, num_points: int, **values: str) -> None:
    """See the module."""
    settings = small_settings(base, **values)  # makes the base, before anything can be killed
    assert settings.run.rounds == 2
    last = points_passed(settings, folder / "undisturbed")
    _print(0, folder / "undisturbed")
    step = last / num_points
    for slot in range(num_points):
        point = 1 + int(step * (slot + Random(f"{seed}/{slot}").random()))
        run_dir = folder / f"{slot}-point-{point}"
        assert killed(settings, run_dir, point), f"the run ended before point {point} of {last}"
        assert not killed(settings, run_dir, NEVER)
        _print(1, run_dir)
    _chain(settings, folder / "chain", max(CHAIN_REACH, last // 4), Random(seed))


def _chain(settings: Settings, run_dir: Path, reach: int, random: Random) -> None:
    num_kills = 0
    while killed(settings, run_dir, random.randint(1, reach)):
        num_kills += 1
    _print(num_kills, run_dir)


def _print(num_kills: int, run_dir: Path) -> None:
    print(json.dumps({"where": run_dir.name, "kills": num_kills, "result": result(run_dir)}), flush=True)


def killed(settings: Settings, run_dir: Path, point: int) -> bool:
    """Start or continue a run in a process of its own; whether it was killed."""
    child = os.fork()
    if child == 0:
        _in_child(lambda: _run(settings, run_dir, point))
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the run failed, see the traceback above"
    return False


def points_passed(settings: Settings, run_dir: Path) -> int:
    """Run the loop undisturbed in a process of its own; how many points it passed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(lambda: os.write(write, str(_run(settings, run_dir, NEVER)).encode()))
    os.waitpid(child, 0)
    return int(os.read(read, 20))


def _in_child(work: Callable[[], object]) -> None:
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _run(settings: Settings, run_dir: Path, point: int) -> int:
    """Run the loop, killing this process at the point; how many points there were."""
    points = count(1)  # atomic: images are written, and so renamed, by several threads

    def at_point(*_: object) -> None:
        if next(points) == point:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "commit", at_point)
    event.listen(Engine, "begin", at_point)
    sys.addaudithook(lambda name, _: at_point() if name == "os.rename" else None)
    # Only a real model can learn from rewards.
    start(settings, run_dir, default_toolbox() if settings.train.learns_from_rewards else None)
    return next(points) - 1


if __name__ == "__main__":
    given = (pair.split("=", 1) for pair in sys.argv[5:])
    main(
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        sys.argv[3],
        int(sys.argv[4]),
        **{name.replace(".", "__"): value for name, value in given},
    )
