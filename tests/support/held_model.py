"""The canned backend, holding still while a file is there: a test has a unit in hand for exactly as long as it wants.

The file's path is in the environment variable HOLD_LOADING, HOLD_DRAWING, HOLD_READING or HOLD_TRAINING of the process.
With REPORTS=1 the backend reports progress while it is held, as a busy one does; else it is silent, as one that hangs.
Before it is held, a training keeps a checkpoint. FEW_LABELS is for how many prompts a process draws images to calibrate
a judge by.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from illume_loop.hooks import OnProgress, ignore
from illume_loop.loop.context import Toolbox
from illume_loop.loop.stages import calibrate
from illume_loop.protocols import ImageIds, Sampling, Scores, TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.keeping import CHECKPOINT_PLAN
from tests.support.canned_model import CONFIG, CannedModel, load_canned, save_canned, train_canned


class HeldModel(CannedModel):
    """See the module."""

    def __init__(self, skill: float, on_progress: OnProgress) -> None:
        super().__init__(skill)
        self.on_progress = on_progress

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        hold("HOLD_DRAWING", self.on_progress)
        return super().sample(prompts, seeds, sampling)

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        hold("HOLD_READING", self.on_progress)
        return super().log_likelihood(images, texts)


class HeldBackend:
    """The backend as an entry point provides it."""

    @staticmethod
    def load(path: Path, device: str, on_progress: OnProgress = ignore) -> HeldModel:
        calibrate.AUTO_PROMPTS = int(os.environ.get("FEW_LABELS", calibrate.AUTO_PROMPTS))
        hold("HOLD_LOADING", on_progress)
        return HeldModel(load_canned(path, device).skill, on_progress)

    @staticmethod
    def train(
        base: Path,
        rows: Sequence[TrainingRow],
        out: Path,
        settings: TrainSettings,
        seed: int,
        on_step: Callable[[int, int], None],
    ) -> None:
        keep_checkpoint()
        hold("HOLD_TRAINING", lambda: on_step(0, 0))
        train_canned(base, rows, out, settings, seed, on_step)


def keep_checkpoint() -> None:
    """Register a checkpoint one step after the newest there is."""
    keeping = CHECKPOINT_PLAN.get()
    if keeping is None:
        return
    step = keeping.kept[0].step + 1 if keeping.kept else 1
    folder = keeping.folder / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(bytes(100 + step))
    keeping.keep(step, folder)


HELD = Toolbox(HeldBackend.load, HeldBackend.train)


def save_held(folder: Path, skill: float) -> Path:
    """Write a checkpoint."""
    save_canned(folder, skill)
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"model_type": "held"}))
    return folder


def hold(variable: str, on_progress: OnProgress = ignore) -> None:
    """Wait while the file that an environment variable names is there."""
    path = os.environ.get(variable)
    while path and Path(path).exists():
        if os.environ.get("REPORTS"):
            on_progress()
        time.sleep(0.02)
