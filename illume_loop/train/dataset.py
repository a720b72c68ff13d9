"""Training rows as TRL sees them: ids and labels of the unified vocabulary, and the features of images to be read.

Image-token ids come from the sample as they were drawn; nothing is tokenised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from datasets import Dataset
from torch import Tensor

from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.sequences import Sequence1D, SequenceBuilder
from illume_loop.train.rows import CorrectRow, DrawRow, LikelyRow, ReadRow

_FEATURE_BATCH = 256


def build_dataset(
    rows: Sequence[LikelyRow], backend: IllumeBackend, text_dropout: float, seed: int
) -> tuple[Dataset, FeatureCollator]:
    """A dataset with the columns `input_ids`, `labels`, `picture` and the collator that batches it.

    `picture` is the row's index into the collator's features, -1 for rows that draw. `text_dropout` of the drawing
    rows, chosen by `seed`, lose their prompt: the unconditional half of guidance.
    """
    rng = Random(seed)
    sequences: list[dict[str, object]] = []
    read: list[ReadRow | CorrectRow] = []
    for row in rows:
        if isinstance(row, DrawRow):
            prompt = "" if rng.random() < text_dropout else row.prompt
            sequences.append(_columns(backend.sequences.draw(prompt, row.image_ids.tolist()), -1))
            continue
        if isinstance(row, CorrectRow):
            sequence = backend.sequences.correct(row.instruction, row.answer, row.image_ids.tolist())
        else:
            sequence = backend.sequences.read(row.caption, row.instruction)
        sequences.append(_columns(sequence, len(read)))
        read.append(row)
    features = [
        backend.features([row.image for row in read[start : start + _FEATURE_BATCH]])
        for start in range(0, len(read), _FEATURE_BATCH)
    ]
    return Dataset.from_list(sequences), FeatureCollator(backend.sequences, torch.cat(features) if features else None)


class FeatureCollator:
    """Pads ids and labels and adds `image_features` (N, L, H) for the N rows of the batch that read an image."""

    def __init__(self, sequences: SequenceBuilder, features_NLH: Tensor | None) -> None:
        self.sequences = sequences
        self.features_NLH = features_NLH

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """One batch."""
        batch = self.sequences.collate([Sequence1D(item["input_ids"], item["labels"]) for item in items])
        read = [int(item["picture"]) for item in items if int(item["picture"]) >= 0]  # type: ignore[call-overload]
        if read and self.features_NLH is not None:
            batch["image_features"] = self.features_NLH[read].clone()
        return batch


def _columns(row: Sequence1D, picture: int) -> dict[str, object]:
    return {"input_ids": row.input_ids, "labels": row.labels, "picture": picture}
