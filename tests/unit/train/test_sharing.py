"""Two processes that share a training lose what one loses, step by step, and go on after a kill; without Ray.

What Ray adds is who starts the processes; test_ray.py has it do so.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import distributed

from illume_loop.config import TrainSettings
from illume_loop.train.fitting import TrainReport
from illume_loop.train.keeping import KEEPING, Keeping, KeptCheckpoint, listed_checkpoint
from illume_loop.train.objectives import train_here
from illume_loop.train.rows import TrainingRow
from illume_loop.train.sharing import deepspeed_config

ALONE = TrainSettings(batch_size=4, epochs=2, learning_rate=1e-3)
NEAR = 1e-4
"""Relative, for losses of a few nats; the order of sums differs."""


@pytest.fixture(scope="module")
def rows(likely_rows: list[TrainingRow]) -> list[TrainingRow]:
    """Twenty rows, five steps in each pass. Some halves of a batch read no image."""
    return [*likely_rows, *likely_rows[:4]]


@pytest.fixture(scope="module")
def alone(base: Path, rows: list[TrainingRow], tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainReport, Path]:
    """Ten steps in this process."""
    out = Path(tmp_path_factory.mktemp("alone")) / "out"
    return train_here(base, rows, out, ALONE, 5, lambda *_: None), out


@pytest.fixture(scope="module")
def reading_rows(likely_rows: list[TrainingRow]) -> list[TrainingRow]:
    """Twenty rows of which fourteen read: with DeepSpeed a step without an image moves the adapter by its momentum."""
    draw, read = likely_rows[:6], likely_rows[10:]
    return [*draw, *read, *read, *read[:2]]


@pytest.fixture(scope="module")
def reading_alone(
    base: Path, reading_rows: list[TrainingRow], tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainReport, Path]:
    """Ten steps of those in this process."""
    out = Path(tmp_path_factory.mktemp("reading")) / "out"
    return train_here(base, reading_rows, out, ALONE, 5, lambda *_: None), out


def _together(work: Callable[[int], None]) -> list[int]:
    """Call `work(rank)` in two processes that know each other; how each of them ended."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in ranks.items()} | {"MASTER_ADDR": "127.0.0.1"})
                torch.set_num_threads(1)
                AcceleratorState._reset_state(reset_partial_state=True)
                distributed.init_process_group("gloo")
                work(rank)
                distributed.destroy_process_group()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def _share(
    base: Path, rows: list[TrainingRow], tmp_path: Path, settings: TrainSettings, attempt: str, killed_at: int = 0
) -> list[int]:
    """Train in two processes, each step kept; both are killed after step `killed_at`."""
    register = tmp_path / "register"

    def work(rank: int) -> None:
        def keep(step: int, folder: Path) -> None:
            distributed.barrier()  # the part of the other process is there too
            if rank == 0:
                line = json.dumps([step, str(folder), dict(listed_checkpoint(step, folder).files)])
                register.write_text(line + "\n" + (register.read_text() if register.exists() else ""))
            distributed.barrier()

        def on_step(done: int, _total: int) -> None:
            if done == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)

        lines = register.read_text().splitlines() if register.exists() else []
        kept = [KeptCheckpoint(step, Path(folder), files) for step, folder, files in map(json.loads, lines)]
        for checkpoint in kept[:1]:
            checkpoint.check()
        KEEPING.set(Keeping(tmp_path / attempt, kept, keep, every_seconds=0.0))
        report = train_here(base, rows, tmp_path / "out", settings, 5, on_step)
        (tmp_path / f"losses-{rank}").write_text(json.dumps([report.losses, report.mean_loss]))

    return _together(work)


def _check(tmp_path: Path, alone: tuple[TrainReport, Path], near: float = NEAR) -> None:
    for rank in range(2):
        losses, mean_loss = json.loads((tmp_path / f"losses-{rank}").read_text())
        assert losses == pytest.approx(alone[0].losses, rel=near)
        assert mean_loss == pytest.approx(alone[0].mean_loss, rel=near)
    one, two = (load_file(folder / "model.safetensors") for folder in (alone[1], tmp_path / "out"))
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=5e-4, msg=lambda text, name=name: f"{name}: {text}")


def _shared(**values: object) -> TrainSettings:
    return ALONE.model_copy(update={"backend": "ray", "workers": 2, **values})


def test_two_processes_are_killed_go_on_and_lose_what_one_loses(
    base: Path, rows: list[TrainingRow], alone: tuple[TrainReport, Path], tmp_path: Path
) -> None:
    ended = _share(base, rows, tmp_path, _shared(), "first", killed_at=6)
    assert [os.WTERMSIG(status) for status in ended] == [signal.SIGKILL] * 2
    assert json.loads((tmp_path / "register").read_text().splitlines()[0])[0] == 5
    assert _share(base, rows, tmp_path, _shared(), "second") == [0, 0]
    _check(tmp_path, alone)


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")  # the processes are this one's children, and DeepSpeed warns of much
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_is_killed_goes_on_and_loses_what_one_process_loses(
    base: Path,
    reading_rows: list[TrainingRow],
    reading_alone: tuple[TrainReport, Path],
    tmp_path: Path,
    strategy: str,
) -> None:
    pytest.importorskip("deepspeed", reason="the extra `cluster` is not installed")
    ended = _share(base, reading_rows, tmp_path, _shared(strategy=strategy), "first", killed_at=6)
    assert [os.WTERMSIG(status) for status in ended] == [signal.SIGKILL] * 2
    assert _share(base, reading_rows, tmp_path, _shared(strategy=strategy), "second") == [0, 0]
    _check(tmp_path, reading_alone, near=1e-3)


@pytest.mark.parametrize(("strategy", "stage"), [("zero2", 2), ("zero3", 3)])
def test_the_shipped_configurations_are_deepspeeds(strategy: str, stage: int) -> None:
    """Its own model refuses unknown keys; "auto" is what transformers puts in."""
    zero = pytest.importorskip("deepspeed.runtime.zero.config", reason="the extra `cluster` is not installed")
    given = deepspeed_config(strategy)["zero_optimization"]
    config = zero.DeepSpeedZeroConfig(**{name: value for name, value in given.items() if value != "auto"})
    assert config.stage == stage
