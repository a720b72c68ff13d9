"""The pretraining corpus, tokenised once: each picture's spec, image ids and continuous features.

Captions are not stored. They are written, with errors at the recipe's rate, when a batch is built.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from illume_loop.domains.shapes.edits import Edit, apply, random_edit
from illume_loop.domains.shapes.render import Placed, draw, place
from illume_loop.domains.shapes.spec import CATEGORIES, Category, Spec
from illume_loop.models.illume.vision import VisionTokenizer, encoded, from_slices, pooled, to_slices
from illume_loop.pretrain.scenes import random_spec, to_pixels
from illume_loop.pretrain.stepper import Progress

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Corpus:
    """A tokenised corpus of N pictures.

    `specs[i]` is the spec of picture i; `ids` are (N, L) int16; `features` are (N, L, H) float16. `edits[i]` turns
    picture i into the picture of `edited_ids[i]`; it is None if no object of picture i is the only one of its kind.
    `of_category` and `of_key` have the pictures of each category, and of each composition that the corpus has.
    """

    specs: list[Spec]
    ids: NDArray[np.int16]
    features: NDArray[np.float16]
    edits: list[Edit | None]
    edited_ids: NDArray[np.int16]
    seed: int
    of_category: Mapping[Category, list[int]]
    of_key: Mapping[str, list[int]]

    def layout(self, index: int) -> list[Placed]:
        """Return the objects of a picture with their positions."""
        return _layout(self.specs[index], index, self.seed)

    def features_at(self, indices: list[int]) -> Tensor:
        """Return the features of pictures, (B, L, H), in float32."""
        return torch.from_numpy(self.features[indices].astype(np.float32))


@torch.inference_mode()
def build_corpus(vision: VisionTokenizer, size: int, seed: int, folder: Path, on_progress: Progress) -> Corpus:
    """Render and tokenise `size` pictures, or read them from `folder` if an earlier call has finished."""
    specs = [random_spec(Random(f"corpus/{seed}/{index}")) for index in range(size)]
    edits = [random_edit(_layout(specs[i], i, seed), Random(f"corpus-edit/{seed}/{i}")) for i in range(size)]
    parts = [folder / f"{name}.npy" for name in ("ids", "edited-ids", "features")]
    if not all(part.exists() for part in parts):
        folder.mkdir(parents=True, exist_ok=True)
        num_tokens, width = len(vision.quantizer.positions), vision.encoder.config.hidden_size
        ids, edited_ids = np.zeros((2, size, num_tokens), np.int16)
        features = np.zeros((size, num_tokens, width), np.float16)
        for start in range(0, size, _BATCH):
            chunk = slice(start, min(start + _BATCH, size))
            layouts = [_layout(specs[i], i, seed) for i in range(chunk.start, chunk.stop)]
            pixels = to_pixels([draw(layout) for layout in layouts]) * 2 - 1
            found = _features(vision, pixels)
            features[chunk] = found.half().numpy()
            ids[chunk] = vision.encode(pixels, found).numpy()
            edited = [
                apply(edit, layout) if edit else layout for edit, layout in zip(edits[chunk], layouts, strict=True)
            ]
            pixels = to_pixels([draw(layout) for layout in edited]) * 2 - 1
            edited_ids[chunk] = vision.encode(pixels, _features(vision, pixels)).numpy()
            on_progress("corpus", chunk.stop, size, 0.0)
        for part, array in zip(parts, (ids, edited_ids, features), strict=True):
            partial = part.with_suffix(".partial.npy")
            np.save(partial, array)
            partial.rename(part)
    ids, edited_ids, features = (np.load(part) for part in parts)
    of_category: dict[Category, list[int]] = {category: [] for category in CATEGORIES}
    of_key: defaultdict[str, list[int]] = defaultdict(list)
    for index, spec in enumerate(specs):
        of_category[spec.category].append(index)
        of_key[spec.key].append(index)
    return Corpus(specs, ids, features, edits, edited_ids, seed, of_category, dict(of_key))


def _features(vision: VisionTokenizer, pixels: Tensor) -> Tensor:
    """Return the features of pictures as `VisionTokenizer.features` does, but encode each different slice once.

    The pictures of this world have few different slices, and the encoder reads each slice on its own.
    """
    slices = to_slices(pixels, vision.slices_per_side)
    rows: dict[bytes, int] = {}
    places = [rows.setdefault(piece.numpy().tobytes(), len(rows)) for piece in slices]
    different = torch.stack([slices[places.index(row)] for row in range(len(rows))])
    tokens = encoded(vision.encoder, different)[places, -vision.patches_per_slice :]
    hidden = from_slices(tokens, vision.slices_per_side)
    return F.layer_norm(pooled(hidden, vision.grid), hidden.shape[-1:])


def _layout(spec: Spec, index: int, seed: int) -> list[Placed]:
    return place(spec, Random(f"corpus-layout/{seed}/{index}"))
