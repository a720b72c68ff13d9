"""Two Ray workers on this machine train as one process does, over gloo: the same losses, step by step.

The first test runs with all others; those marked `cluster` take minutes and are run by hand: pytest -n 0 -m cluster.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from illume_loop.config import TrainSettings
from illume_loop.train.fitting import OnStep, TrainReport
from illume_loop.train.keeping import KEEPING, Keeping, KeptCheckpoint, listed_checkpoint
from illume_loop.train.objectives import train_candidate
from illume_loop.train.rows import LikelyRow, TrainingRow

pytest.importorskip("ray", reason="the extra `cluster` is not installed")
pytest.importorskip("deepspeed", reason="the extra `cluster` is not installed")

# Ray warns of its own settings, whatever is done with it.
pytestmark = [pytest.mark.filterwarnings(f"ignore::{kind}") for kind in ("DeprecationWarning", "FutureWarning")]

ALONE = TrainSettings(batch_size=4, epochs=2, learning_rate=1e-3)
ADDRESS = os.environ.get("RAY_ADDRESS", "")
"""A Ray that runs already, which a slow machine may be glad of."""
SHARED = {"backend": "ray", "workers": 2, "worker_resources": "CPU=1", "ray_address": ADDRESS}
NEAR = 2e-4
"""Relative, for losses of a few nats: the order of sums differs, and ten steps of AdamW carry that on."""


@pytest.fixture(scope="module")
def rows(likely_rows: list[LikelyRow]) -> list[LikelyRow]:
    """Twenty rows, five steps in each pass."""
    return [*likely_rows, *likely_rows[:4]]


@pytest.fixture(scope="module")
def alone(base: Path, rows: list[LikelyRow], tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainReport, Path]:
    """Ten steps in this process."""
    out = Path(tmp_path_factory.mktemp("alone")) / "out"
    return train_candidate(base, rows, out, ALONE, 5, lambda *_: None), out


@pytest.fixture(scope="module")
def reading_rows(likely_rows: list[LikelyRow]) -> list[LikelyRow]:
    """Twenty rows of which fourteen read: with DeepSpeed a step without an image moves the adapter by its momentum."""
    draw, read = likely_rows[:6], likely_rows[10:]
    return [*draw, *read, *read, *read[:2]]


@pytest.fixture(scope="module")
def reading_alone(
    base: Path, reading_rows: list[TrainingRow], tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainReport, Path]:
    """Ten steps of those in this process."""
    out = Path(tmp_path_factory.mktemp("reading")) / "out"
    return train_candidate(base, reading_rows, out, ALONE, 5, lambda *_: None), out


def _kill_a_worker_after(step: int, folder: Path) -> OnStep:
    """Kills one worker, once, when a checkpoint of `step` or later has been registered."""
    killed: list[int] = []

    def on_step(done: int, _total: int) -> None:
        if done > step and list(folder.glob("*/checkpoint*")) and not killed:
            workers = _workers()
            assert workers, "a step was taken, so there are workers"
            killed.append(workers[-1])
            os.kill(workers[-1], signal.SIGKILL)

    return on_step


def _workers() -> list[int]:
    """Process ids of Ray's training workers, of a Ray that this process started or of any."""
    found = []
    for process in psutil.process_iter() if ADDRESS else psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it may have ended meanwhile
            if "RayTrainWorker" in " ".join(process.cmdline()):
                found.append(process.pid)
    return found


def _kept(folder: Path) -> tuple[Keeping, list[KeptCheckpoint]]:
    """Keeping after every step, with a list in the place of the database."""
    registered: list[KeptCheckpoint] = []

    def keep(step: int, saved: Path) -> KeptCheckpoint:
        registered.append(listed_checkpoint(step, saved))
        return registered[-1]

    return Keeping(folder, [], keep, every_seconds=0.0), registered


def _train(
    base: Path, rows: list[TrainingRow], tmp_path: Path, settings: TrainSettings, kill_after: int | None
) -> TrainReport:
    keeping, registered = _kept(tmp_path / "kept")
    on_step: Callable[[int, int], None] = lambda *_: None  # noqa: E731
    if kill_after is not None:
        on_step = _kill_a_worker_after(kill_after, tmp_path / "kept")
    token = KEEPING.set(keeping)
    try:
        report = train_candidate(base, rows, tmp_path / "out", settings, 5, on_step)
    finally:
        KEEPING.reset(token)
    steps = [checkpoint.step for checkpoint in registered]
    assert steps, "checkpoints reached the driver"
    assert report.steps == 10
    return report


def _same(report: TrainReport, out: Path, alone: tuple[TrainReport, Path], near: float = NEAR) -> None:
    assert report.losses == pytest.approx(alone[0].losses, rel=near)
    assert report.mean_loss == pytest.approx(alone[0].mean_loss, rel=near)
    one, two = (load_file(folder / "model.safetensors") for folder in (alone[1], out))
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=5e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize(
    "kill_after",
    [
        pytest.param(None, marks=pytest.mark.slow),
        pytest.param(5, marks=[pytest.mark.cluster, pytest.mark.timeout(1800)]),
    ],
)
def test_two_workers_train_as_one_process_though_one_is_killed(
    base: Path,
    rows: list[TrainingRow],
    alone: tuple[TrainReport, Path],
    tmp_path: Path,
    kill_after: int | None,
) -> None:
    report = _train(base, rows, tmp_path, ALONE.model_copy(update=SHARED), kill_after)
    _same(report, tmp_path / "out", alone)


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kill_after", [None, 5])
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_trains_as_one_process(
    base: Path,
    reading_rows: list[TrainingRow],
    reading_alone: tuple[TrainReport, Path],
    tmp_path: Path,
    strategy: str,
    kill_after: int | None,
) -> None:
    settings = ALONE.model_copy(update=SHARED | {"strategy": strategy})
    report = _train(base, reading_rows, tmp_path, settings, kill_after)
    _same(report, tmp_path / "out", reading_alone, near=1e-3)
