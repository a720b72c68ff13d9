"""How the coordinator's tick and `rounds show` grow with the samples in the database, and what those weigh in Postgres.

    python docs/experiments/service/database.py [NUM_SAMPLES ...]

Starts a Postgres (with its own defaults, fsync included) and a Redis, fills a database for each size and each shape of
rounds, and prints the tables of README.md in this folder. Nothing but the coordinator works on the database meanwhile.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from filled import SHIPPED, filled_run  # noqa: E402
from sqlalchemy import text  # noqa: E402
from sqlalchemy.orm import Session  # noqa: E402

from illume_db.rounds_table import round_detail, rounds_table  # noqa: E402
from illume_db.sessions import transaction  # noqa: E402
from illume_db.workers import beat, register_worker  # noqa: E402
from illume_loop.loop.context import RunContext  # noqa: E402
from illume_loop.loop.coordinator import Coordinator  # noqa: E402
from illume_loop.loop.run_directory import RunDirectory  # noqa: E402
from illume_loop.settings import ClusterSettings  # noqa: E402
from illume_workers.dispatch import Dispatcher  # noqa: E402
from illume_workers.leadership import Leadership  # noqa: E402
from illume_workers.sender import CelerySender  # noqa: E402
from tests.support.plugged import PLUGIN, plugged  # noqa: E402
from tests.support.process import ILLUME_LOOP, environment  # noqa: E402
from tests.support.servers import PostgresServer, RedisServer  # noqa: E402

SIZES = (10_000, 100_000, 1_000_000)
ONE_ROUND = 250
"""Samples of each prompt, and of each unit, where all samples are in one round."""
MAX_PROMPTS = 3_640
"""The shapes world has 3,681 train prompts, so one round holds 910,000 samples of this shape at most."""
TICKS, SHOWS, COMMANDS = 60, 30, 5


class Silent:
    """Hears how far a run is, and says nothing."""

    def advanced(self, event: object) -> None:
        """Ignore the progress of a stage."""

    def round_ended(self, index: int, state: str, reasons: object) -> None:
        """Ignore the end of a round."""


def main(sizes: tuple[int, ...]) -> None:
    """See the module."""
    sys.path.append(str(PLUGIN))
    print("| rounds | samples | tick: look | tick: send 8 | rounds show | rounds ls | command `rounds show` |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="illume-context-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for server in ("postgres", "redis"):
            (folder / server).mkdir()
        with PostgresServer(folder / "postgres") as postgres, RedisServer(folder / "redis") as redis:
            for number, (label, size, shape) in enumerate(_cases(sizes)):
                postgres.execute(f"CREATE DATABASE filled_{number}")
                home = folder / f"run-{number}"
                home.mkdir()
                with filled_run(postgres.url(f"filled_{number}"), home, size, shape) as (context, directory):
                    cells = _measured(context, directory, redis)
                    print(f"| {label} | {size:,} | {' | '.join(cells)} |", flush=True)
                    if size == max(sizes) and label == "of 3,072":
                        weights = list(_weights(context, size))
                postgres.execute(f"DROP DATABASE filled_{number}")
    print(f"\nload of the machine at the end: {os.getloadavg()[0]:.1f} of {os.cpu_count()} cores")
    print("\n| table | rows | MB, with its indexes | bytes a row |\n|---|---|---|---|")
    for line in weights:
        print(line)


def _cases(sizes: tuple[int, ...]) -> Iterator[tuple[str, int, tuple[int, int, int]]]:
    for size in sizes:
        yield "of 3,072", size, SHIPPED
    for size in sizes:
        num_prompts = min(size // ONE_ROUND, MAX_PROMPTS)
        yield "one", num_prompts * ONE_ROUND, (num_prompts, ONE_ROUND, ONE_ROUND)


def _measured(context: RunContext, directory: RunDirectory, redis: RedisServer) -> list[str]:
    cluster = ClusterSettings(redis_url=redis.url())
    leadership = Leadership(context.engine, context.run_id, cluster.leader_lease_s)
    assert leadership.acquire()
    dispatcher = Dispatcher(context, leadership, CelerySender(cluster), lambda _: None, 1000)
    coordinator = Coordinator(context, Silent(), 1000, executor=dispatcher, transactions=leadership.transaction)
    workers = [f"generator@bench:{number}" for number in range(4)]
    with transaction(context.engine) as session:
        for name in workers:
            register_worker(session, name=name, host="bench", pid=1, roles=["generator"], device="cpu")
        index = len(rounds_table(session, context.run_id))

    def unsent() -> None:
        _beat(context, workers)
        with transaction(context.engine) as session:
            session.execute(text("UPDATE units SET issued_at = NULL WHERE issued_at IS NOT NULL"))

    def sent() -> None:
        _beat(context, workers)
        with transaction(context.engine) as session:
            session.execute(text("UPDATE units SET issued_at = clock_timestamp() WHERE issued_at IS NOT NULL"))

    send = _timed(coordinator.tick, TICKS, unsent)
    look = _timed(coordinator.tick, TICKS, sent)
    leadership.release()
    with Session(context.engine) as session:
        show = _timed(lambda: round_detail(session, context.run_id, index), SHOWS, session.rollback)
        ls = _timed(lambda: rounds_table(session, context.run_id), SHOWS, session.rollback)
    command = [ILLUME_LOOP, "rounds", "show", str(index), "--run-dir", str(directory.path)]
    env = environment(**plugged(ILLUME_STORE__DATABASE_URL=context.settings.store.database_url))
    whole = _timed(lambda: subprocess.run(command, env=env, check=True, capture_output=True), COMMANDS, lambda: None)
    return [look, send, show, ls, whole]


def _beat(context: RunContext, workers: list[str]) -> None:
    with transaction(context.engine) as session:
        for name in workers:
            beat(session, name, state="running", unit_key=None, items_done=0, model_version=None, progressed=False)


def _timed(work: Callable[[], object], times: int, before: Callable[[], object]) -> str:
    """Median and largest of so many, in milliseconds; the first one, which opens connections, is left out."""
    seconds = []
    for _ in range(times + 1):
        before()
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return f"{statistics.median(seconds[1:]) * 1e3:.1f} ms (max {max(seconds[1:]) * 1e3:.0f})"


def _weights(context: RunContext, num_samples: int) -> Iterator[str]:
    query = (
        "SELECT relname, n_live_tup, pg_total_relation_size(relid) FROM pg_stat_user_tables"
        " WHERE n_live_tup > 0 ORDER BY 3 DESC"
    )
    total = 0
    with context.engine.connect() as connection:
        for name, rows, num_bytes in connection.execute(text(query)):
            total += num_bytes
            if num_bytes > 1e6:
                yield f"| {name} | {rows:,} | {num_bytes / 1e6:,.0f} | {num_bytes / rows:,.0f} |"
    yield f"| all, for {num_samples:,} samples | | {total / 1e6:,.0f} | {total / num_samples:,.0f} a sample |"


if __name__ == "__main__":
    main(tuple(int(word.replace("_", "")) for word in sys.argv[1:]) or SIZES)
