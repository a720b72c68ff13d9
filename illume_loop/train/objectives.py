"""The objectives by the names that `train.objective` gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from illume_loop.config import TrainSettings
from illume_loop.protocols import DrawRow, LikelyRow, PairRow, TrainingRow
from illume_loop.train.dataset import build_dataset
from illume_loop.train.fitting import OnStep, TrainReport
from illume_loop.train.preference import train_dpo, train_kto
from illume_loop.train.sft import train_sft
from illume_loop.train.trainable import Trainable
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


def lay_out(backend: Trainable, rows: Sequence[TrainingRow], settings: TrainSettings) -> None:
    """Turn rows into ids, labels, features and one batch, as every objective does; both sides of a pair are drawn."""
    likely: list[LikelyRow] = [row for row in rows if not isinstance(row, PairRow)]
    for pair in (row for row in rows if isinstance(row, PairRow)):
        likely += [DrawRow(pair.prompt, pair.chosen_ids), DrawRow(pair.prompt, pair.rejected_ids)]
    dataset, collate = build_dataset(likely, backend, settings.text_dropout, 0)
    collate([dataset[place] for place in range(len(dataset))])


def train_here(
    base: Path, rows: Sequence[TrainingRow], out: Path, settings: TrainSettings, seed: int, on_step: OnStep
) -> TrainReport:
    """The same in this process, which may be one of several that share the training."""
    return OBJECTIVES[settings.objective](base, rows, out, settings, seed, on_step)
