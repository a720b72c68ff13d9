"""One small random Janus for all tests of a process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import JanusForConditionalGeneration, JanusProcessor

from illume_loop.protocols import CorrectRow, DrawRow, LikelyRow, PairRow, ReadRow
from tests.support.tiny_janus import CODES, TOKENS, save_tiny_janus


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint."""
    return save_tiny_janus(Path(tmp_path_factory.mktemp("janus")))


@pytest.fixture(scope="session")
def published(folder: Path) -> JanusForConditionalGeneration:
    """What transformers itself makes of the checkpoint; nothing may change it."""
    return JanusForConditionalGeneration.from_pretrained(folder).eval()


@pytest.fixture(scope="session")
def processor(folder: Path) -> JanusProcessor:
    """The same for its processor."""
    return JanusProcessor.from_pretrained(folder)


@pytest.fixture(scope="session")
def images() -> list[Image.Image]:
    """Three pictures that differ, not all of the model's size."""
    rng = np.random.default_rng(5)
    sides = (32, 48, 20)
    return [Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in sides]


@pytest.fixture(scope="session")
def likely_rows(images: list[Image.Image]) -> list[LikelyRow]:
    """Rows of text and of images in one mix, prompts and answers of different lengths."""
    ids = _ids(4, seed=0)
    return [
        DrawRow("a red circle", ids[0]),
        ReadRow(images[0], "two blue squares above a ring"),
        DrawRow("an image with three green crosses below a yellow ring", ids[1]),
        ReadRow(images[1], "No", "Is there a circle ?"),
        CorrectRow(images[2], "assess a red circle", "yes, there is a circle", "make it show a red circle", ids[2]),
        DrawRow("a cross", ids[3]),
    ]


@pytest.fixture(scope="session")
def pair_rows() -> list[PairRow]:
    """Preferences between random images."""
    ids = _ids(6, seed=1)
    prompts = ["a red circle", "two blue squares left of a ring", "a green cross"]
    return [PairRow(prompt, ids[2 * i], ids[2 * i + 1]) for i, prompt in enumerate(prompts)]


def _ids(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, CODES, (count, TOKENS)).astype(np.int32)
