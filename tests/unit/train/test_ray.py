"""Two Ray workers on this machine train as one process does, over gloo: the same losses, step by step.

The first test runs with all others; those marked `cluster` take minutes and are run by hand: pytest -n 0 -m cluster -rP
tests/unit/train, which also shows the numbers.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

import psutil
import pytest

from illume_loop.protocols import TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.ray_driver import ENVIRONMENT
from illume_loop.train.trainings import CandidateTraining, TrainReport, run_training
from tests.support.servers import free_port
from tests.support.shared_training import (
    ALONE,
    Alone,
    Register,
    assert_same_losses,
    assert_same_weights,
    train_and_die,
    train_kept,
)

pytest.importorskip("ray", reason="the extra `cluster` is not installed")
pytest.importorskip("deepspeed", reason="the extra `cluster` is not installed")

# Ray warns of its own settings, whatever is done with it.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]

SHARED = {"backend": "ray", "workers": 2, "worker_resources": "CPU=1"}
NEAR = 2e-4
"""Relative, for losses of a few nats: the order of sums differs, and ten steps of AdamW carry that on."""
NEAR_SHARDED = 1e-3
"""DeepSpeed sums in other orders still, and clips by a norm that it sums in parts."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[str, int]]:
    """(address, process id) of a Ray on this machine, which trainings join and leave."""
    port = free_port()
    ray = Path(sys.executable).with_name("ray")
    # Only this machine reaches it, so it needs no token, which drivers would have to be told of before they import Ray.
    options = ["--head", "--block", "--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={port}"]
    env, log = os.environ | ENVIRONMENT | {"RAY_AUTH_MODE": "disabled"}, subprocess.DEVNULL
    command = [ray, "start", *options, "--include-dashboard=false"]
    with subprocess.Popen(command, env=env, stdout=log, stderr=log) as head:
        try:
            deadline = time.monotonic() + 300
            while not _listens(port):
                assert time.monotonic() < deadline, "Ray did not start"
                time.sleep(0.2)
            yield f"127.0.0.1:{port}", head.pid
        finally:
            head.terminate()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


class _Killing:
    """Hears the steps of a training on the Ray below `head`; kills one of its workers, once, after a step."""

    def __init__(self, head: int, after: int | None, register: Register) -> None:
        self.head, self.after, self.register = head, after, register
        self.heard: list[int] = []
        self.killed = False

    def __call__(self, done: int, _total: int) -> None:
        self.heard.append(done)
        if self.after is not None and done > self.after and not self.killed and self.register.kept():
            os.kill(_workers(self.head)[-1], signal.SIGKILL)
            self.killed = True


def _workers(head: int) -> list[int]:
    """Process ids of Ray's training workers."""
    found = []
    for process in psutil.Process(head).children(recursive=True):
        with suppress(psutil.Error):  # it may have ended meanwhile
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_two_workers_train_as_one_process(base: Path, rows: list[TrainingRow], tmp_path: Path) -> None:
    """Four steps of fewer rows: most of the time is for starting Ray and for its workers' imports."""
    few = [*rows[:4], *rows[10:14]]
    alone = (
        run_training(CandidateTraining(base, few, tmp_path / "alone", ALONE, 5), lambda *_: None),
        tmp_path / "alone",
    )
    report = train_kept(base, few, tmp_path, ALONE.model_copy(update=SHARED), lambda *_: None)
    assert report.steps == 4
    assert Register(tmp_path / "register").kept(), "checkpoints reached the driver"
    assert_same_losses(report.losses, report.mean_loss, alone, NEAR)
    assert_same_weights(tmp_path / "out", alone)


CASES = [
    ("ddp", "sft", 0, 5),
    ("zero2", "sft", 0, None),
    ("zero2", "sft", 0, 5),
    ("zero3", "sft", 0, None),
    ("zero3", "sft", 0, 5),
    ("ddp", "sft", 4, None),
    ("zero2", "sft", 4, None),
    ("zero3", "sft", 4, None),
    ("ddp", "dpo", 0, None),
    ("ddp", "dpo", 4, 5),
]


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("strategy", "objective", "lora_rank", "kill_after"), CASES)
def test_a_shared_training_is_that_of_one_process_though_a_worker_is_killed(
    base: Path,
    rows: list[TrainingRow],
    reading_rows: list[TrainingRow],
    preference_rows: list[TrainingRow],
    cluster: tuple[str, int],
    tmp_path: Path,
    strategy: str,
    objective: str,
    lora_rank: int,
    kill_after: int | None,
) -> None:
    settings = ALONE.model_copy(update={"objective": objective, "lora_rank": lora_rank})
    learned = rows if strategy == "ddp" else reading_rows
    if objective == "dpo":
        # Eight pairs beside sixteen rows: two pairs in each step, one for each worker.
        settings, learned = settings.model_copy(update={"batch_size": 8, "epochs": 3}), preference_rows
    alone: Alone = (
        run_training(CandidateTraining(base, learned, tmp_path / "alone", settings, 5), lambda *_: None),
        tmp_path / "alone",
    )
    address, head = cluster
    shared = settings.model_copy(update=SHARED | {"strategy": strategy, "ray_address": address})
    killing = _Killing(head, kill_after, Register(tmp_path / "register"))
    report = train_kept(base, learned, tmp_path, shared, killing)
    _check(report, tmp_path / "out", alone, shared, f"{killing.heard}, a worker killed after {kill_after}")
    assert Register(tmp_path / "register").kept(), "checkpoints reached the driver"
    assert killing.killed == (kill_after is not None)
    again = [after for before, after in zip(killing.heard, killing.heard[1:], strict=False) if after <= before]
    assert len(again) == killing.killed
    assert all(step > 1 for step in again), "it went on from a checkpoint"


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("strategy", ["ddp", "zero2"])
def test_five_steps_and_a_kill_of_the_driver_and_five_more_are_ten(
    base: Path, reading_rows: list[TrainingRow], reading_alone: Alone, tmp_path: Path, strategy: str
) -> None:
    """On a Ray of its own, which the killed driver takes along; the newest checkpoint is then found truncated."""
    settings = ALONE.model_copy(update=SHARED | {"strategy": strategy})
    driver = get_context("spawn").Process(target=train_and_die, args=(base, reading_rows, tmp_path, settings, 5))
    driver.start()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL
    newest, before, *_ = Register(tmp_path / "register").kept()
    damaged = max((newest.folder / name for name in newest.files), key=lambda path: path.stat().st_size)
    os.truncate(damaged, damaged.stat().st_size // 2)
    heard: list[int] = []
    report = train_kept(base, reading_rows, tmp_path, settings, lambda done, _: heard.append(done), "second")
    _check(report, tmp_path / "out", reading_alone, settings, f"{heard}, the driver killed after 5")
    assert heard[0] == before.step + 1 > 1


def _check(report: TrainReport, out: Path, alone: Alone, settings: TrainSettings, what: str) -> None:
    worst = max(abs(one / two - 1) for one, two in zip(report.losses, alone[0].losses, strict=True))
    print(
        f"{settings.strategy} {settings.objective} LoRA {settings.lora_rank}, heard {what}: {report.steps} steps, "
        f"final loss {report.losses[-1]:.6f}, alone {alone[0].losses[-1]:.6f}, worst of all steps {worst:.1e}"
    )
    assert report.steps == alone[0].steps >= 10
    assert_same_losses(report.losses, report.mean_loss, alone, NEAR if settings.strategy == "ddp" else NEAR_SHARDED)
    assert_same_weights(out, alone)
