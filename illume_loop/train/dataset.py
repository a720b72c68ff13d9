"""Training rows as TRL sees them: ids and labels of the unified vocabulary, and the features of images to read.

The image-token ids are those that were drawn with the sample. No image is tokenised again.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import torch
from datasets import Dataset
from torch import Tensor

from illume_loop.models.sequences import Sequence1D, collate
from illume_loop.protocols import CorrectRow, DrawRow, EditRow, LikelyRow, PairRow, ReadRow, TrainingRow
from illume_loop.settings import TrainSettings
from illume_loop.train.trainable import Trainable

_FEATURE_BATCH = 256


def build_dataset(
    rows: Sequence[LikelyRow], backend: Trainable, text_dropout: float, seed: int
) -> tuple[Dataset, FeatureCollator]:
    """Return a dataset with the columns `input_ids`, `labels` and `picture`, and the collator that batches it.

    `picture` is the row's index into the collator's features; -1 for rows that only draw. A share `text_dropout` of
    the rows that draw or edit, chosen by `seed`, loses its prompt or instruction. They train the unconditional half of
    classifier-free guidance.
    """
    rng = Random(seed)
    sequences: list[dict[str, object]] = []
    read: list[ReadRow | CorrectRow | EditRow] = []
    for row in rows:
        if isinstance(row, DrawRow):
            dropped = rng.random() < text_dropout
            drawn = backend.sequences.draw(row.prompt, row.image_ids.tolist(), prompt_dropped=dropped)
            sequences.append(_columns(drawn, -1))
            continue
        if isinstance(row, CorrectRow):
            sequence = backend.sequences.correct(row.instruction, row.answer, row.request, row.image_ids.tolist())
        elif isinstance(row, EditRow):
            dropped = rng.random() < text_dropout
            sequence = backend.sequences.edit(row.instruction, row.image_ids.tolist(), prompt_dropped=dropped)
        else:
            sequence = backend.sequences.read(row.caption, row.instruction)
        sequences.append(_columns(sequence, len(read)))
        read.append(row)
    features = [
        backend.features([row.image for row in read[start : start + _FEATURE_BATCH]]).cpu()
        for start in range(0, len(read), _FEATURE_BATCH)
    ]
    return Dataset.from_list(sequences), FeatureCollator(
        backend.sequences.pad, torch.cat(features) if features else None
    )


def lay_out(backend: Trainable, rows: Sequence[TrainingRow], settings: TrainSettings) -> None:
    """Turn rows into ids, labels, features and one batch, as every objective does.

    A pair counts as two rows to draw.
    """
    likely: list[LikelyRow] = [row for row in rows if not isinstance(row, PairRow)]
    for pair in (row for row in rows if isinstance(row, PairRow)):
        likely += [DrawRow(pair.prompt, pair.chosen_ids), DrawRow(pair.prompt, pair.rejected_ids)]
    dataset, collate = build_dataset(likely, backend, settings.text_dropout, 0)
    collate([dataset[place] for place in range(len(dataset))])


class FeatureCollator:
    """A collator that pads ids and labels and adds `image_features` (N, L, H) for the N rows that read an image."""

    def __init__(self, pad: int, features_NLH: Tensor | None) -> None:
        self.pad = pad
        self.features_NLH = features_NLH

    def __call__(self, items: Sequence[dict[str, list[int]]]) -> dict[str, Tensor]:
        """Return one batch."""
        batch = collate([Sequence1D(item["input_ids"], item["labels"]) for item in items], self.pad)
        read = [int(item["picture"]) for item in items if int(item["picture"]) >= 0]  # type: ignore[call-overload]
        if read and self.features_NLH is not None:
            batch["image_features"] = self.features_NLH[read].clone()
        return batch


def _columns(row: Sequence1D, picture: int) -> dict[str, object]:
    return {"input_ids": row.input_ids, "labels": row.labels, "picture": picture}
