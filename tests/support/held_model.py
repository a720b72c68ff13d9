"""The canned backend, holding still while a file is there: a test has a unit in hand for exactly as long as it wants.

The file's path is in the environment variable HOLD_DRAWING or HOLD_TRAINING of the process. FEW_LABELS is for how many
prompts a process draws images to calibrate a judge by.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from illume_loop.config import TrainSettings
from illume_loop.loop import calibrating
from illume_loop.loop.workbench import Toolbox
from illume_loop.models.protocol import ImageIds, Sampling
from illume_loop.train.rows import TrainingRow
from tests.support.canned_model import CONFIG, CannedModel, load_canned, save_canned, train_canned


class HeldModel(CannedModel):
    """See the module."""

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        hold("HOLD_DRAWING")
        return super().sample(prompts, seeds, sampling)


class HeldBackend:
    """The backend as an entry point provides it."""

    @staticmethod
    def load(path: Path, device: str) -> HeldModel:
        calibrating.AUTO_PROMPTS = int(os.environ.get("FEW_LABELS", calibrating.AUTO_PROMPTS))
        return HeldModel(load_canned(path, device).skill)

    @staticmethod
    def train(
        base: Path,
        rows: Sequence[TrainingRow],
        out: Path,
        settings: TrainSettings,
        seed: int,
        on_step: Callable[[int, int], None],
    ) -> None:
        hold("HOLD_TRAINING")
        train_canned(base, rows, out, settings, seed, on_step)


HELD = Toolbox(HeldBackend.load, HeldBackend.train)


def save_held(folder: Path, skill: float) -> Path:
    """Write a checkpoint."""
    save_canned(folder, skill)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"model_type": "held"}))
    return folder


def hold(variable: str) -> None:
    """Wait while the file that an environment variable names is there."""
    path = os.environ.get(variable)
    while path and Path(path).exists():
        time.sleep(0.02)
