"""Trainings as values: what a process on another host is handed, which there imports what it needs when it runs.

Importing this imports neither torch nor TRL: these read the environment when they are imported, and not all processes
that pass a training on need them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from illume_loop.config import TrainSettings
from illume_loop.protocols import TrainingRow

if TYPE_CHECKING:
    from illume_loop.train.fitting import TrainReport


class Training(Protocol):
    """A training of the checkpoint `base` whose result goes to `out`; both are absolute."""

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

    def run(self, on_step: Callable[[int, int], None]) -> TrainReport:
        """Train in this process, which may be one of several that share the training."""
        ...


@dataclass(frozen=True, slots=True)
class CandidateTraining:
    """A candidate from the rows of a manifest; see `illume_loop.train.objectives.train_candidate`."""

    base: Path
    rows: Sequence[TrainingRow]
    out: Path
    settings: TrainSettings
    seed: int

    def run(self, on_step: Callable[[int, int], None]) -> TrainReport:
        """See `Training.run`."""
        from illume_loop.train.objectives import train_here

        return train_here(self.base, self.rows, self.out, self.settings, self.seed, on_step)
