"""A stage as a training that can be sent to any process. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from illume_loop.pretrain.staged_recipe import Stage
from illume_loop.settings import TrainSettings


@dataclass(frozen=True, slots=True)
class StageTraining:
    """The training of a recipe's stage, from the checkpoint `base` to the checkpoint `out`. All paths are absolute."""

    base: Path
    out: Path
    stage: Stage
    sources: Mapping[str, Path]
    settings: TrainSettings
    seed: int
    rows_at_once: int
    loaders: int

    @property
    def runner(self) -> str:
        """The function that trains a stage."""
        return "illume_loop.pretrain.stage_trainer:train_stage"

    @property
    def passes(self) -> int:
        """The passes that each process accumulates per step. Raises ValueError if the rows do not divide evenly."""
        at_once = self.rows_at_once * self.settings.num_processes
        if self.stage.batch % at_once:
            raise ValueError(
                f"a step of {self.stage.name} has {self.stage.batch} rows, which are no multiple of "
                f"{self.rows_at_once} rows at once in {self.settings.num_processes} processes"
            )
        return self.stage.batch // at_once
