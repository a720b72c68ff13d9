"""Runs many seeds, one after the other, and keeps a line for each in a table.

    python -m tests.chaos.campaign TABLE FIRST STOP

The table is written after every seed, so a campaign that was stopped goes on with the seeds that it lacks when the same
command is given again. The database and the logs of a seed that did not hold are kept in the folder that is printed.
Ends with 1 where a seed is `broken`.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.cluster import nursery
from tests.chaos.faults import plan_of
from tests.chaos.trial import LEASE_S, Stage, Verdict
from tests.support.servers import PostgresServer, RedisServer

HEADER = "seed\tresult\tseconds\tfaults planned\tfaults fired\tnotes\tcommands given\n"


@contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Servers and processes for many seeds, in a folder that everyone may enter."""
    for name in ("postgres", "redis", "runs"):
        (folder / name).mkdir()
    # Every crash here is one of processes; one of the machine, against which fsync is, would need another test.
    options = {"fsync": "off", "max_connections": "200"}
    with (
        PostgresServer(folder / "postgres", options=options) as postgres,
        RedisServer(folder / "redis") as redis,
        nursery() as forking,
    ):
        yield Stage(folder / "runs", postgres, redis, forking)


def main(table: Path, first: int, stop: int) -> int:
    """See the module."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    if not table.exists():
        table.write_text(HEADER, encoding="utf-8")
    done = {int(line.split("\t")[0]) for line in table.read_text(encoding="utf-8").splitlines()[1:]}
    folder = Path(tempfile.mkdtemp(prefix="illume-chaos-"))
    folder.chmod(0o755)
    print(f"logs: {folder}", flush=True)
    num_broken = 0
    with stage(folder) as scene:
        for seed in (seed for seed in range(first, stop) if seed not in done):
            verdict = scene.play(plan_of(seed, LEASE_S))
            num_broken += verdict.result == "broken"
            with table.open("a", encoding="utf-8") as file:
                file.write(_line(verdict))
            print(_line(verdict), end="", flush=True)
    return 1 if num_broken else 0


def _line(verdict: Verdict) -> str:
    cells = (
        str(verdict.seed),
        verdict.result,
        f"{verdict.seconds:.1f}",
        ", ".join(verdict.faults),
        ", ".join(verdict.fired),
        "; ".join(verdict.notes).replace("\t", " ").replace("\n", " "),
        ", ".join(verdict.ordered),
    )
    return "\t".join(cells) + "\n"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
