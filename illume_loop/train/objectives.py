"""The objectives by the names that `train.objective` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from illume_loop.config import TrainSettings
from illume_loop.train.fitting import OnStep, TrainReport
from illume_loop.train.preference import train_dpo, train_kto
from illume_loop.train.rows import TrainingRow
from illume_loop.train.sft import train_sft
from illume_loop.train.trainings import CandidateTraining

Train = Callable[[Path, Sequence[TrainingRow], Path, TrainSettings, int, OnStep], TrainReport]

OBJECTIVES: Mapping[str, Train] = {"sft": train_sft, "assess-sft": train_sft, "dpo": train_dpo, "kto": train_kto}


def train_candidate(
    base: Path, rows: Sequence[TrainingRow], out: Path, settings: TrainSettings, seed: int, on_step: OnStep
) -> TrainReport:
    """Train a copy of the checkpoint `base` by the objective of the settings and write the candidate to `out`.

    Here, or on Ray where `train.backend` says so; then see `train_on_ray` for what it raises.
    """
    if settings.backend == "ray":
        from illume_loop.train.ray_driver import train_on_ray

        return train_on_ray(CandidateTraining(base.absolute(), list(rows), out.absolute(), settings, seed), on_step)
    return train_here(base, rows, out, settings, seed, on_step)


def train_here(
    base: Path, rows: Sequence[TrainingRow], out: Path, settings: TrainSettings, seed: int, on_step: OnStep
) -> TrainReport:
    """The same in this process, which may be one of several that share the training."""
    return OBJECTIVES[settings.objective](base, rows, out, settings, seed, on_step)
