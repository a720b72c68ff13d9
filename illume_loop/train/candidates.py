"""The training of a candidate: by a plug-in's own `train`, or by our trainers, in this process or on Ray.

Importing this module imports neither torch nor TRL.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from illume_loop.models.registry import backend_of
from illume_loop.protocols import ChecksRows, TrainFunction, TrainingRow, UnifiedModel
from illume_loop.settings import TrainSettings
from illume_loop.train.ray_driver import run_locally_or_on_ray
from illume_loop.train.trainings import CandidateTraining, OnStep

if TYPE_CHECKING:
    from illume_loop.train.trainable import Trainable


@runtime_checkable
class ChecksTraining(Protocol):
    """A backend whose models our trainers train."""

    def check_training(self, settings: TrainSettings) -> None:
        """Raise UsageError if models of this backend cannot be trained with these settings."""
        ...


def train_candidate(
    base: Path, rows: Sequence[TrainingRow], out: Path, settings: TrainSettings, seed: int, on_step: OnStep
) -> object:
    """Train a copy of the checkpoint `base` by the settings' objective and write the candidate to `out`.

    Returns the `TrainReport` of our trainers, or what a plug-in's `train` returns. Raises UsageError if the backend
    cannot be trained with these settings, TrainingDivergedError, what `load_model` raises, and what `train_on_ray`
    raises if `train.backend` is "ray".
    """
    backend = backend_of(base)
    of_plug_in: TrainFunction | None = getattr(backend, "train", None)
    if of_plug_in is not None:
        return of_plug_in(base, rows, out, settings, seed, on_step)
    cast(ChecksTraining, backend).check_training(settings)
    training = CandidateTraining(base.absolute(), list(rows), out.absolute(), settings, seed)
    return run_locally_or_on_ray(training, on_step)


def try_rows(model: UnifiedModel, rows: Sequence[TrainingRow], settings: TrainSettings) -> None:
    """Lay out rows as a training of this model would, without training. Raises what the training would raise.

    A plug-in's model that implements neither `ChecksRows` nor `ChecksTraining` is not tried.
    """
    if isinstance(model, ChecksRows):
        model.try_rows(rows, settings)
    elif isinstance(model, ChecksTraining):
        model.check_training(settings)
        from illume_loop.train.dataset import lay_out

        lay_out(cast("Trainable", model), rows, settings)
