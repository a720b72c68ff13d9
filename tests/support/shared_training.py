"""Trainings that several processes share, beside the same in one: settings, keeping, and what must be equal."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from illume_loop.protocols import TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.candidates import train_candidate
from illume_loop.train.keeping import (
    CHECKPOINT_PLAN,
    CheckpointPlan,
    KeptCheckpoint,
    from_first_intact,
    listed_checkpoint,
)
from illume_loop.train.trainings import TrainReport

ALONE = TrainSettings(batch_size=4, epochs=2, learning_rate=1e-3)
Alone = tuple[TrainReport, Path]
"""What one process made of a training, and its candidate."""


class Register:
    """What the database is elsewhere: a file that outlives the process."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, step: int, folder: Path) -> KeptCheckpoint:
        checkpoint = listed_checkpoint(step, folder)
        with self.path.open("a") as file:
            file.write(json.dumps([step, str(folder), dict(checkpoint.files)]) + "\n")
        return checkpoint

    def kept(self) -> list[KeptCheckpoint]:
        """The newest first."""
        lines = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        return [KeptCheckpoint(step, Path(folder), files) for step, folder, files in reversed(lines)]


def train_kept(
    base: Path,
    rows: list[TrainingRow],
    folder: Path,
    settings: TrainSettings,
    on_step: Callable[[int, int], None],
    attempt: str = "first",
) -> TrainReport:
    """Train with a checkpoint after every step, and go on from the newest whole one of the attempts before."""
    register = Register(folder / "register")
    kept = from_first_intact(register.kept(), lambda *_: None)
    token = CHECKPOINT_PLAN.set(CheckpointPlan(folder / attempt, kept, register.keep, every_seconds=0.0))
    try:
        return train_candidate(base, rows, folder / "out", settings, 5, on_step)
    finally:
        CHECKPOINT_PLAN.reset(token)


def train_and_die(base: Path, rows: list[TrainingRow], folder: Path, settings: TrainSettings, after: int) -> None:
    """The same until the process that trains, or has others train, kills itself after a step that was kept."""

    def on_step(done: int, _total: int) -> None:
        if done > after and Register(folder / "register").kept():
            os.kill(os.getpid(), signal.SIGKILL)

    train_kept(base, rows, folder, settings, on_step)


def assert_same_losses(losses: tuple[float, ...], mean_loss: float, alone: Alone, near: float) -> None:
    """Step by step, within a relative tolerance."""
    assert losses == pytest.approx(alone[0].losses, rel=near)
    assert mean_loss == pytest.approx(alone[0].mean_loss, rel=near)


def assert_same_weights(out: Path, alone: Alone, near: float = 5e-4) -> None:
    """Of the candidates, within an absolute tolerance."""
    one, two = (load_file(folder / "model.safetensors") for folder in (alone[1], out))
    assert one.keys() == two.keys()
    for name, weights in one.items():
        torch.testing.assert_close(two[name], weights, rtol=0, atol=near, msg=lambda text, name=name: f"{name}: {text}")
