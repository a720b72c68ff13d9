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
from torch import distributed

from illume_loop.protocols import TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.keeping import CHECKPOINT_PLAN, CheckpointPlan
from illume_loop.train.sharing import deepspeed_config
from illume_loop.train.trainings import CandidateTraining, run_training
from tests.support.shared_training import ALONE, Alone, Register, assert_same_losses, assert_same_weights

NEAR = 1e-4
"""Relative, for losses of a few nats; the order of sums differs."""
NEAR_KTO = 5e-3
"""TRL's KTO loss is no mean over images: the estimate of how far the model has moved stands inside of it."""


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
                # accelerate warns where the number of threads is left to it.
                more = {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
                os.environ.update({name: str(value) for name, value in ranks.items()} | more)
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
    register = Register(tmp_path / "register")

    def work(rank: int) -> None:
        def keep(step: int, folder: Path) -> None:
            distributed.barrier()  # the part of the other process is there too
            if rank == 0:
                register.keep(step, folder)
            distributed.barrier()

        def on_step(done: int, _total: int) -> None:
            if done and done == killed_at:
                os.kill(os.getpid(), signal.SIGKILL)

        kept = register.kept()
        for checkpoint in kept[:1]:
            checkpoint.check()
        CHECKPOINT_PLAN.set(CheckpointPlan(tmp_path / attempt, kept, keep, every_seconds=0.0))
        report = run_training(CandidateTraining(base, rows, tmp_path / "out", settings, 5), on_step)
        (tmp_path / f"losses-{rank}").write_text(json.dumps([report.losses, report.mean_loss]))

    return _together(work)


def _check(tmp_path: Path, alone: Alone, near: float = NEAR) -> None:
    for rank in range(2):
        losses, mean_loss = json.loads((tmp_path / f"losses-{rank}").read_text())
        assert_same_losses(tuple(losses), mean_loss, alone, near)
    assert_same_weights(tmp_path / "out", alone)


def _shared(**values: object) -> TrainSettings:
    return ALONE.model_copy(update={"backend": "ray", "workers": 2, **values})


def test_two_processes_are_killed_go_on_and_lose_what_one_loses(
    base: Path, rows: list[TrainingRow], alone: Alone, tmp_path: Path
) -> None:
    ended = _share(base, rows, tmp_path, _shared(), "first", killed_at=6)
    assert [os.WTERMSIG(status) for status in ended] == [signal.SIGKILL] * 2
    assert Register(tmp_path / "register").kept()[0].step == 5
    assert _share(base, rows, tmp_path, _shared(), "second") == [0, 0]
    _check(tmp_path, alone)


@pytest.mark.parametrize(("objective", "num_rows"), [("dpo", 24), ("dpo", 11), ("kto", 24)])
def test_an_anchor_weighs_each_label_alike_in_whichever_process_it_stands(
    base: Path, preference_rows: list[TrainingRow], tmp_path: Path, objective: str, num_rows: int
) -> None:
    """Eight pairs beside images and captions; where these are three, not every process has one in every step."""
    preference_rows = preference_rows[:num_rows]
    settings = ALONE.model_copy(update={"objective": objective, "batch_size": 10, "epochs": 1})
    shared = settings.model_copy(update={"backend": "ray", "workers": 2})
    report = run_training(CandidateTraining(base, preference_rows, tmp_path / "alone", settings, 5), lambda *_: None)
    assert _share(base, preference_rows, tmp_path, shared, "first") == [0, 0]
    alone = report, tmp_path / "alone"
    if objective == "dpo":
        _check(tmp_path, alone)
    else:
        losses, mean_loss = json.loads((tmp_path / "losses-0").read_text())
        assert_same_losses(tuple(losses), mean_loss, alone, NEAR_KTO)


@pytest.mark.cluster
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")  # the processes are this one's children, and DeepSpeed warns of much
@pytest.mark.parametrize("strategy", ["zero2", "zero3"])
def test_deepspeed_is_killed_goes_on_and_loses_what_one_process_loses(
    base: Path,
    reading_rows: list[TrainingRow],
    reading_alone: Alone,
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
