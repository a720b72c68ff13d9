"""Trainings as plain values, which can be sent to a process on another host and run there.

Importing this module imports neither torch nor TRL. Both read the environment when they are imported, and not every
process that passes a training on needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Protocol, cast

from illume_loop.protocols import TrainingRow
from illume_loop.settings import TrainSettings

OnStep = Callable[[int, int], None]
"""Called with (optimizer steps done, total steps); with (0, 0) after each stage before the first step."""


@dataclass(frozen=True, slots=True)
class TrainReport:
    """The report of a training. `mean_loss` is the mean over steps; for `sft` in nats per labelled id."""

    num_rows: int
    steps: int
    mean_loss: float
    seconds: float
    losses: tuple[float, ...]
    """The loss of each step, including the steps before the checkpoint that the training resumed from."""


class Training(Protocol):
    """A training of the checkpoint `base` whose result goes to `out`; both are absolute."""

    @property
    def runner(self) -> str:
        """The function that runs the training, as "module:function": only the process that trains imports it."""
        ...

    @property
    def base(self) -> Path:
        """The checkpoint that the training starts from."""
        ...

    @property
    def out(self) -> Path:
        """The folder of the result."""
        ...

    @property
    def settings(self) -> TrainSettings:
        """The settings of the training and of the hardware it runs on."""
        ...


def run_training(training: Training, on_step: OnStep) -> TrainReport:
    """Train in this process, which may be one of several that share the training."""
    run = cast("Callable[[Training, OnStep], TrainReport]", resolve_name(training.runner))
    return run(training, on_step)


OBJECTIVES: Mapping[str, str] = {
    "sft": "illume_loop.train.sft:train_sft",
    "assess-sft": "illume_loop.train.sft:train_sft",
    "dpo": "illume_loop.train.preference:train_dpo",
    "kto": "illume_loop.train.preference:train_kto",
}
"""The function of each objective that `train.objective` names."""


@dataclass(frozen=True, slots=True)
class CandidateTraining:
    """The training of a candidate on the rows of a manifest."""

    base: Path
    rows: Sequence[TrainingRow]
    out: Path
    settings: TrainSettings
    seed: int

    @property
    def runner(self) -> str:
        """The function of the objective."""
        return OBJECTIVES[self.settings.objective]
