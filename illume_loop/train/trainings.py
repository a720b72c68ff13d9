"""Trainings as values: what a process on another host is handed, which imports there what it needs when it runs.

Importing this imports neither torch nor TRL. These read the environment when they are imported, and not all processes
that pass a training on need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import ClassVar, Protocol, cast

from illume_loop.protocols import TrainingRow
from illume_loop.settings import TrainSettings

OnStep = Callable[[int, int], None]
"""Called with (optimizer steps done, steps in all); with (0, 0) after each stage before the first step."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training did: its loss is the mean over steps, of `sft` in nats for each labelled id."""

    num_rows: int
    steps: int
    mean_loss: float
    seconds: float
    losses: tuple[float, ...]
    """Of each step, those that were taken before a checkpoint that this training went on from too."""


class Training(Protocol):
    """A training of the checkpoint `base` whose result goes to `out`; both are absolute."""

    runner: ClassVar[str]
    """The function that runs it, as "module:function", so that it is imported only where the training runs."""

    @property
    def base(self) -> Path:
        """What it starts from."""
        ...

    @property
    def out(self) -> Path:
        """Where its result goes."""
        ...

    @property
    def settings(self) -> TrainSettings:
        """How it runs, and on what."""
        ...


def run_training(training: Training, on_step: OnStep) -> TrainReport:
    """Train in this process, which may be one of several that share the training."""
    run = cast("Callable[[Training, OnStep], TrainReport]", resolve_name(training.runner))
    return run(training, on_step)


@dataclass(frozen=True, slots=True)
class CandidateTraining:
    """The training of a candidate on the rows of a manifest."""

    runner: ClassVar[str] = "illume_loop.train.objectives:train_here"

    base: Path
    rows: Sequence[TrainingRow]
    out: Path
    settings: TrainSettings
    seed: int
