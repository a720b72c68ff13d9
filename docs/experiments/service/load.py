"""How many units and samples a second four workers store, and what coordinator, Postgres and Redis use meanwhile.

    python docs/experiments/service/load.py

Every process is a real one of the command line, on the backend that does nothing; Postgres runs with its own defaults,
fsync included. A row of the table is one round, from the moment its first unit is leased until its last one is done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT)]

from tests.support.noop_model import save_noop  # noqa: E402
from tests.support.plugged import plugged  # noqa: E402
from tests.support.process import ILLUME_LOOP, environment  # noqa: E402
from tests.support.servers import PostgresServer, RedisServer  # noqa: E402

NUM_WORKERS = 4
LONGEST_S = 240.0


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the table."""

    label: str
    roles: tuple[str, ...]
    prompts: int
    samples: int
    batch: int
    distinct_images: bool
    stage: str
    """The stage whose end ends the row."""


CASES = (
    Case("4 generators, one image for all", ("generator",), 1000, 64, 256, False, "sample"),
    Case("4 generators, every image a file", ("generator",), 500, 64, 256, True, "sample"),
    Case("4 generators, units of 8 samples", ("generator",), 1000, 8, 8, False, "sample"),
    Case("4 workers of both roles, drawn and judged", ("generator", "assessor"), 200, 64, 256, False, "assess"),
)


def main(labels: Sequence[str]) -> None:
    """See the module."""
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} of {psutil.cpu_count()} cores")
    print("| case | samples | seconds | samples/s | units/s | coordinator | 4 workers | Postgres | Redis |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for case in CASES:
        if not labels or any(label in case.label for label in labels):
            print(_row(case), flush=True)


def _row(case: Case) -> str:
    with tempfile.TemporaryDirectory(prefix="illume-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        for server in ("postgres", "redis"):
            (folder / server).mkdir()
        with PostgresServer(folder / "postgres") as postgres, RedisServer(folder / "redis") as redis:
            postgres.execute("CREATE DATABASE loop")
            env = environment(
                **plugged(
                    ILLUME_STORE__DATABASE_URL=postgres.url("loop"),
                    ILLUME_STORE__ARTIFACTS_URL=str(folder / "artifacts"),
                    ILLUME_CLUSTER__REDIS_URL=redis.url(),
                    ILLUME_CLUSTER__CACHE_DIR=str(folder / "cache"),
                )
            )
            with _processes(case, folder, env) as (coordinator, workers):
                servers = {name: psutil.Process(server.pid) for name, server in (("p", postgres), ("r", redis))}
                return _watch(case, postgres.url("loop"), coordinator, workers, servers)


@contextmanager
def _processes(case: Case, folder: Path, env: dict[str, str]) -> Iterator[tuple[psutil.Process, list[psutil.Process]]]:
    config = folder / "run.toml"
    values = {
        "run.base": str(save_noop(folder / "base", distinct_images=case.distinct_images)),
        "run.rounds": 1,
        "sampling.prompts_per_round": case.prompts,
        "sampling.samples_per_prompt": case.samples,
        "sampling.batch_size": case.batch,
        "assess.batch_size": case.batch,
    }
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    roles = [word for role in case.roles for word in ("--role", role)]
    start = ["start", "--executor", "celery", "--config", str(config), "--run-dir", str(folder / "run")]
    commands = [start, *([["worker", *roles]] * NUM_WORKERS)]
    opened: list[subprocess.Popen[bytes]] = []
    try:
        for number, words in enumerate(commands):
            with (folder / f"{number}.log").open("wb") as log:
                opened.append(subprocess.Popen([ILLUME_LOOP, *words], env=env, stdout=log, stderr=log))
            if not number:
                # Workers ask for the newest schema, which the coordinator makes.
                time.sleep(6)
        processes = [psutil.Process(process.pid) for process in opened]
        yield processes[0], processes[1:]
    finally:
        for process in opened:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _watch(
    case: Case,
    url: str,
    coordinator: psutil.Process,
    workers: list[psutil.Process],
    servers: dict[str, psutil.Process],
) -> str:
    groups = {"coordinator": [coordinator], "workers": workers, "p": [servers["p"]], "r": [servers["r"]]}
    query = (
        "SELECT c.num_done, c.items_done, c.num_units = c.num_done, c.num_leased FROM stage_counts c WHERE kind = %s"
    )
    deadline = time.monotonic() + LONGEST_S
    began, before = 0.0, {}
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        while time.monotonic() < deadline:
            if not began:
                row = connection.execute(query, ["sample"]).fetchone()
                if row and (row[0] or row[3]):
                    began, before = time.monotonic(), _cpu(groups)
            else:
                row = connection.execute(query, [case.stage]).fetchone()
                if row and row[2]:
                    return _cells(case, time.monotonic() - began, before, _cpu(groups), _num_units(connection))
            time.sleep(0.02)
    raise TimeoutError(f"{case.label}: not over after {LONGEST_S:.0f} s")


def _num_units(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute("SELECT sum(num_done) FROM stage_counts").fetchone()
    return int(row[0]) if row else 0


def _cells(case: Case, seconds: float, before: dict[str, float], after: dict[str, float], num_units: int) -> str:
    num_samples = case.prompts * case.samples
    shares = [f"{(after[name] - before[name]) / seconds:.0%}" for name in ("coordinator", "workers", "p", "r")]
    numbers = f"{num_samples:,} | {seconds:.1f} | {num_samples / seconds:,.0f} | {num_units / seconds:.1f}"
    return f"| {case.label} | {numbers} | {' | '.join(shares)} |"


def _cpu(groups: dict[str, list[psutil.Process]]) -> dict[str, float]:
    """Seconds of processor time that each group has used so far, its live children included."""
    return {name: sum(_seconds(process) for process in group) for name, group in groups.items()}


def _seconds(process: psutil.Process) -> float:
    family = [process, *process.children(recursive=True)]
    # Of children that have ended, their parent keeps the account.
    return sum(sum(member.cpu_times()[:4]) for member in family)


if __name__ == "__main__":
    main(sys.argv[1:])
