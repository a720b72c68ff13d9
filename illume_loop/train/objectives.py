"""The training functions of the objectives, by their names in `train.objective`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from illume_loop.train.preference import train_dpo, train_kto
from illume_loop.train.sft import train_sft
from illume_loop.train.trainings import CandidateTraining, OnStep, TrainReport

OBJECTIVES: Mapping[str, Callable[[CandidateTraining, OnStep], TrainReport]] = {
    "sft": train_sft,
    "assess-sft": train_sft,
    "dpo": train_dpo,
    "kto": train_kto,
}


def train_here(training: CandidateTraining, on_step: OnStep) -> TrainReport:
    """Train by the settings' objective in this process, which may be one of several that share the training."""
    return OBJECTIVES[training.settings.objective](training, on_step)
