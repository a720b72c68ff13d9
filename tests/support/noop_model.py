"""A real backend behind the UnifiedModel protocol that does nothing: canned ids, canned pixels, one score.

With it a run costs what the service costs: the database, the messages, the files. Its checkpoint says whether every
sample is an image of its own (its ids as pixels, so each one is written to the store) or all are the same one, and how
long it sleeps where a real model would keep an accelerator busy.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from illume_loop.protocols import MAX_ANSWER_TOKENS, ImageIds, Sampling, Scores, TrainingRow
from illume_loop.settings import TrainSettings

TOKENS = 256
"""As many as an image of the paper has, so that rows weigh what they will weigh."""
SIDE = 16
CONFIG = "config.json"


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds of sleep for one sample drawn, one sample read, and one training."""

    draw: float = 0.0
    read: float = 0.0
    train: float = 0.0


class NoopModel:
    """See the module."""

    name = "noop"
    tokens_per_image = TOKENS

    def __init__(self, distinct_images: bool, pace: Pace) -> None:
        self._distinct_images = distinct_images
        self._pace = pace
        self._image = Image.new("RGB", (SIDE, SIDE))

    def sample(self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling) -> ImageIds:
        time.sleep(self._pace.draw * len(seeds))
        ids_BL = np.zeros((len(seeds), TOKENS), dtype=np.int32)
        # The seed itself, ten bits an id: rows differ as their seeds do, and no id is wider than a real one.
        for position in range(7):
            ids_BL[:, position] = [seed >> (10 * position) & 1023 for seed in seeds]
        return ids_BL

    def decode(self, image_ids_BL: ImageIds) -> list[Image.Image]:
        if not self._distinct_images:
            return [self._image] * len(image_ids_BL)
        grey_BHW = (image_ids_BL % 256).astype(np.uint8).reshape(-1, SIDE, SIDE)
        high_BHW = (image_ids_BL // 256).astype(np.uint8).reshape(-1, SIDE, SIDE)
        return [
            Image.fromarray(np.stack([low, high, low], axis=-1)) for low, high in zip(grey_BHW, high_BHW, strict=True)
        ]

    def encode(self, images: Sequence[Image.Image]) -> ImageIds:
        return np.zeros((len(images), TOKENS), dtype=np.int32)

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        time.sleep(self._pace.read * len(texts))
        return np.zeros(len(texts))

    def log_prior(self, texts: Sequence[str]) -> Scores:
        return np.zeros(len(texts))

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        time.sleep(self._pace.read * len(images))
        return [np.zeros(len(of_image)) for of_image in questions]

    def read(
        self, images: Sequence[Image.Image], texts: Sequence[str], questions: Sequence[Sequence[str]]
    ) -> tuple[Scores, list[Scores]]:
        return self.log_likelihood(images, texts), self.yes_no_log_odds(images, questions)

    def instruct(
        self,
        images: Sequence[Image.Image] | None,
        instructions: Sequence[str],
        *,
        forced: Sequence[str] | None = None,
        temperature: float = 0.0,
        seeds: Sequence[int] = (),
        max_tokens: int = MAX_ANSWER_TOKENS,
    ) -> list[str]:
        return list(forced) if forced else [""] * len(instructions)

    def edit(
        self, images: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> ImageIds:
        return self.sample(instructions, seeds, sampling)


def save_noop(folder: Path, *, distinct_images: bool, pace: Pace | None = None, seed: int = 0) -> Path:
    """Write a checkpoint; `seed` only makes it another one."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "model_type": "noop",
        "domain": "shapes",
        "distinct_images": distinct_images,
        "pace": asdict(pace or Pace()),
        "seed": seed,
    }
    (folder / CONFIG).write_text(json.dumps(content))
    return folder


def load_noop(path: Path, device: str) -> NoopModel:
    """Read a checkpoint."""
    content = json.loads((path / CONFIG).read_text())
    return NoopModel(content["distinct_images"], Pace(**content["pace"]))


def train_noop(
    base: Path,
    rows: Sequence[TrainingRow],
    out: Path,
    settings: TrainSettings,
    seed: int,
    on_step: Callable[[int, int], None],
) -> None:
    """Another checkpoint that draws as its base does, after ten steps."""
    content = json.loads((base / CONFIG).read_text())
    pace = Pace(**content["pace"])
    for step in range(1, 11):
        time.sleep(pace.train / 10)
        on_step(step, 10)
    save_noop(out, distinct_images=content["distinct_images"], pace=pace, seed=seed)


class NoopBackend:
    """The backend as an entry point provides it; see `tests.support.plugged`."""

    load = staticmethod(load_noop)
    train = staticmethod(train_noop)
