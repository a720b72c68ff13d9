"""The pretraining corpus, tokenised once: what each picture shows, its image ids and its continuous features.

Captions are not stored: they are worded, and made wrong at the stated rate, when a batch is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from illume_loop.domains.shapes.render import render
from illume_loop.domains.shapes.spec import Spec
from illume_loop.models.illume.modeling import VisionTokenizer
from illume_loop.pretrain.scenes import random_spec, to_pixels
from illume_loop.pretrain.stepper import Progress

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Corpus:
    """`specs[i]` is what picture i shows; `ids` (N, L) int16; `features` (N, L, H) float16."""

    specs: list[Spec]
    ids: NDArray[np.int16]
    features: NDArray[np.float16]

    def features_at(self, indices: list[int]) -> Tensor:
        """Features (B, L, H) in float32."""
        return torch.from_numpy(self.features[indices].astype(np.float32))


@torch.inference_mode()
def build_corpus(vision: VisionTokenizer, size: int, seed: int, folder: Path, on_progress: Progress) -> Corpus:
    """Render and tokenise `size` pictures, or read them back where an earlier call finished."""
    specs = [random_spec(Random(f"corpus/{seed}/{index}")) for index in range(size)]
    ids_path, features_path = folder / "ids.npy", folder / "features.npy"
    if not features_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        num_tokens, width = vision.quantizer.positions.shape
        ids = np.zeros((size, num_tokens), np.int16)
        features = np.zeros((size, num_tokens, width), np.float16)
        for start in range(0, size, _BATCH):
            chunk = slice(start, min(start + _BATCH, size))
            pictures = [_picture(specs[i], i, seed) for i in range(chunk.start, chunk.stop)]
            found = vision.features(to_pixels(pictures) * 2 - 1)
            features[chunk] = found.half().numpy()
            ids[chunk] = vision.encode(found).numpy()
            on_progress("corpus", chunk.stop, size, 0.0)
        np.save(ids_path, ids)
        partial = features_path.with_suffix(".partial.npy")
        np.save(partial, features)
        partial.rename(features_path)
    return Corpus(specs, np.load(ids_path), np.load(features_path))


def _picture(spec: Spec, index: int, seed: int) -> Image.Image:
    return render(spec, Random(f"corpus-layout/{seed}/{index}"))
