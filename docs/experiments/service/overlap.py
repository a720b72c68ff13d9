"""How idle the workers are with and without overlapping rounds.

    python docs/experiments/service/overlap.py

One worker of each role; the model sleeps where a real one would keep an accelerator busy, so that what is measured is
how the loop hands out work and not how two cores are shared. A worker is busy for the seconds of its units, as the
database has them; the rest, from the first lease to the end of the last round, it is idle.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT)]

from tests.support.noop_model import Pace, save_noop  # noqa: E402
from tests.support.plugged import plugged  # noqa: E402
from tests.support.process import ILLUME_LOOP, environment  # noqa: E402
from tests.support.servers import PostgresServer, RedisServer  # noqa: E402

KINDS = {"generator": ("sample",), "assessor": ("assess", "evaluate"), "trainer": ("train",)}
PACE = Pace(draw=0.010, read=0.002, train=4.0)
VALUES: dict[str, object] = {
    "run.rounds": 5,
    "sampling.prompts_per_round": 64,
    "sampling.samples_per_prompt": 8,
    "sampling.batch_size": 64,
    "assess.batch_size": 64,
    "curate.real_rows": 16,
    "gate.heldout_prompts": 64,
    "gate.probe_items": 32,
}


def main() -> None:
    """See the module."""
    print("| overlap_rounds | seconds for 5 rounds | generator idle | assessor idle | trainer idle | staleness |")
    print("|---|---|---|---|---|---|", flush=True)
    for overlap in (0, 1):
        print(_row(overlap), flush=True)


def _row(overlap: int) -> str:
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
            _run(overlap, folder, env)
            return _cells(overlap, postgres.url("loop"))


def _run(overlap: int, folder: Path, env: dict[str, str]) -> None:
    base = save_noop(folder / "base", distinct_images=False, pace=PACE)
    values = {**VALUES, "run.base": str(base), "loop.overlap_rounds": overlap}
    config = folder / "run.toml"
    config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in values.items()))
    start = ["start", "--executor", "celery", "--config", str(config), "--run-dir", str(folder / "run")]
    with (folder / "log").open("wb") as log:
        coordinator = subprocess.Popen([ILLUME_LOOP, *start], env=env, stdout=log, stderr=log)
        time.sleep(6)  # workers ask for the newest schema, which the coordinator makes
        workers = [
            subprocess.Popen([ILLUME_LOOP, "worker", "--role", role], env=env, stdout=log, stderr=log) for role in KINDS
        ]
        try:
            if coordinator.wait(400):
                raise RuntimeError((folder / "log").read_text(errors="replace")[-3000:])
        finally:
            for process in [coordinator, *workers]:
                process.send_signal(signal.SIGKILL)
                process.wait()


def _cells(overlap: int, url: str) -> str:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        wall = connection.execute(
            "SELECT extract(epoch FROM max(r.ended_at) - (SELECT min(progress_at) - min(seconds) * interval '1 second'"
            " FROM units WHERE kind = 'sample')) FROM rounds r"
        ).fetchone()
        assert wall is not None
        seconds = float(wall[0])
        busy = dict(connection.execute("SELECT kind, sum(seconds) FROM stage_counts GROUP BY kind").fetchall())
        staleness = connection.execute("SELECT array_agg(staleness ORDER BY index) FROM rounds").fetchone()
        assert staleness is not None
    idle = [1 - sum(float(busy[kind]) for kind in kinds) / seconds for kinds in KINDS.values()]
    return f"| {overlap} | {seconds:.1f} | {' | '.join(f'{share:.0%}' for share in idle)} | {staleness[0]} |"


if __name__ == "__main__":
    main()
