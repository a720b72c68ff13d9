"""How long the dashboard's pages take over a million samples in Postgres, and what memory the server needs.

    python docs/experiments/service/pages.py [NUM_SAMPLES]

Fills a database twice, with rounds of the shipped size and with one round that holds all, starts the dashboard on each
as a process of its own, and asks for every page over HTTP. Prints the table of README.md in this folder.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import psutil  # noqa: E402
from database import MAX_PROMPTS, ONE_ROUND  # noqa: E402
from filled import SHIPPED, filled_run  # noqa: E402

from illume_db.samples import samples_page  # noqa: E402
from illume_db.sessions import transaction  # noqa: E402
from tests.support.plugged import PLUGIN, plugged  # noqa: E402
from tests.support.process import ILLUME_LOOP, environment  # noqa: E402
from tests.support.servers import PostgresServer, free_port  # noqa: E402

TIMES = 15
RUN = "/runs/1"


def main(num_samples: int) -> None:
    """See the module."""
    sys.path.append(str(PLUGIN))
    num_prompts = min(num_samples // ONE_ROUND, MAX_PROMPTS)
    shapes = {"rounds of 3,072": SHIPPED, "one round": (num_prompts, ONE_ROUND, ONE_ROUND)}
    print("| rounds | page | median, ms | largest, ms | KB |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="illume-pages-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "postgres").mkdir()
        with PostgresServer(folder / "postgres") as postgres:
            for number, (label, shape) in enumerate(shapes.items()):
                postgres.execute(f"CREATE DATABASE filled_{number}")
                home = folder / f"run-{number}"
                home.mkdir()
                size = num_samples if shape == SHIPPED else num_prompts * ONE_ROUND
                with filled_run(postgres.url(f"filled_{number}"), home, size, shape) as (context, directory):
                    with transaction(context.engine) as session:
                        first, *_, last = samples_page(session, context.run_id, limit=2)
                    _measure(
                        label, postgres.url(f"filled_{number}"), directory.path, (first["id"], last["id"] + size // 2)
                    )
                postgres.execute(f"DROP DATABASE filled_{number}")


def _pages(samples: tuple[int, int]) -> Iterator[tuple[str, str]]:
    first, middle = samples
    yield "runs", "/"
    yield "rounds", RUN
    yield "one round", f"{RUN}/rounds/1"
    yield "gallery", f"{RUN}/gallery"
    yield "gallery, far into it", f"{RUN}/gallery?round=1&after={first + 2000}"
    yield "gallery, a filter that nothing passes", f"{RUN}/gallery?text=zebra"
    yield "gallery, assessors disagree", f"{RUN}/gallery?differ=yes"
    yield "gallery, score band and category", f"{RUN}/gallery?low=0.2&high=0.3&category=color"
    yield "best and worst", f"{RUN}/gallery?view=extremes"
    yield "parent and candidate", f"{RUN}/gallery?view=pairs"
    yield "sample", f"{RUN}/samples/{middle}"
    yield "review", f"{RUN}/review"
    yield "judge", f"{RUN}/judge"
    yield "models", f"{RUN}/models"
    yield "workers", "/workers"
    yield "live mark", f"{RUN}/live?once=true"


def _measure(label: str, url: str, run_dir: Path, samples: tuple[int, int]) -> None:
    port = free_port()
    env = environment(**plugged(ILLUME_STORE__DATABASE_URL=url))
    command = [ILLUME_LOOP, "dashboard", "--run-dir", str(run_dir), "--port", str(port)]
    server = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)
    try:
        base = f"http://127.0.0.1:{port}"
        _wait(base)
        idle = psutil.Process(server.pid).memory_info().rss
        for name, path in _pages(samples):
            seconds, size = [], 0
            for _ in range(TIMES + 1):
                began = time.perf_counter()
                with urllib.request.urlopen(base + path, timeout=60) as answer:
                    size = len(answer.read())
                seconds.append(time.perf_counter() - began)
            median, most = statistics.median(seconds[1:]) * 1e3, max(seconds[1:]) * 1e3
            print(f"| {label} | {name} | {median:.0f} | {most:.0f} | {size / 1e3:.0f} |", flush=True)
        used = psutil.Process(server.pid).memory_info().rss
        print(
            f"| {label} | memory: {idle / 2**20:.0f} MiB idle, {used / 2**20:.0f} MiB after all pages | | | |",
            flush=True,
        )
    finally:
        server.terminate()
        server.wait(30)


def _wait(base: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{base}/login", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the dashboard did not start")


if __name__ == "__main__":
    main(int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 1_000_000)
