"""The rows of a mix as a trainer takes them: sequences, and the pixels of the images that they read.

Invariants:
- The row at a position, its slices, and whether its text is dropped depend only on the seed and the position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from illume_loop.data.layout import DRAWS, DROPS, KIND_OF, WHOLE, Task, sequence_of
from illume_loop.data.mixing import Mix
from illume_loop.data.pixels import Fit, open_image
from illume_loop.data.store import StoredRow, Tokenised
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.slices import blocks_of
from illume_loop.models.processors import pixels_of
from illume_loop.models.sequences import Sequence1D, collate

Item = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a mix: a task on the rows of a source."""

    task: Task
    source: str
    weight: float


class MixedRows:
    """The rows of a mix by their position."""

    def __init__(
        self,
        shares: Sequence[Share],
        sources: Mapping[str, Tokenised],
        backend: IllumeBackend,
        seed: int,
        purpose: str,
        *,
        text_dropout: float,
        max_slices: int,
    ) -> None:
        """Make the mix. Raises ValueError if a share has no rows or too small a weight; see `Mix`."""
        self.shares, self.sources, self.sequences = shares, sources, backend.sequences
        self.side = int(backend.model.config.image_size)
        self.text_dropout, self.max_slices = text_dropout, max_slices
        rows = [sources[share.source].rows_of(KIND_OF[share.task], drawn=share.task in DRAWS) for share in shares]
        self.mix = Mix([share.weight for share in shares], rows, seed, purpose)

    def __getitem__(self, position: int) -> Item:
        """Return `input_ids`, `labels` and `pictures`, the image blocks that the row reads, in reading order."""
        chosen = self.mix.at(position)
        share = self.shares[chosen.part]
        source = self.sources[share.source]
        row = source[chosen.row]
        dropped = share.task in DROPS and chosen.rng.random() < self.text_dropout
        sequence, pictures = self._laid_out(share.task, row, source.manifest.fit, source.manifest.max_ids, dropped)
        return {"input_ids": sequence.input_ids, "labels": sequence.labels, "pictures": pictures}

    def _laid_out(
        self, task: Task, row: StoredRow, fit: Fit, max_ids: int, dropped: bool
    ) -> tuple[Sequence1D, list[Image.Image]]:
        """Return the row's sequence and the image blocks that it reads.

        It takes the most slices that the mix allows and that fit in `max_ids`. One block per image always fits:
        tokenising has checked it.
        """
        images = [open_image(data) for data in row.images] if task not in ("text-to-image", "text") else []
        if task not in WHOLE:
            images = [fit.square(image, self.side) for image in images]
        for max_slices in range(self.max_slices if task in WHOLE else 1, 0, -1):
            blocks = [blocks_of(image, self.side, max_slices) for image in images]
            counts = [len(of_image) for of_image in blocks]
            sequence = sequence_of(task, row, row.ids, self.sequences, counts, dropped=dropped)
            if len(sequence.input_ids) <= max_ids:
                break
        return sequence, [block for of_image in blocks for block in of_image]


class PixelCollator:
    """A collator that pads ids and labels and adds `pixel_values` (N, 3, S, S) of the N blocks that a batch reads.

    With `always`, a batch without blocks gets empty `pixel_values`, so that all processes have the same gradients.
    """

    def __init__(self, processor: Any, pad: int, *, always: bool = False) -> None:
        self.processor, self.pad, self.always = processor, pad, always

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return one batch."""
        batch = collate([Sequence1D(item["input_ids"], item["labels"]) for item in items], self.pad)
        pictures = [picture for item in items for picture in item["pictures"]]
        if pictures:
            batch["pixel_values"] = pixels_of(pictures, self.processor, torch.device("cpu"), torch.float32)
        elif self.always:
            batch["pixel_values"] = torch.zeros(0, 3, self.processor.size["height"], self.processor.size["width"])
        return batch


class ReadingCollator:
    """A collator that reads the rows at a batch's positions, in the process that loads the batch."""

    def __init__(self, rows: MixedRows, collator: Callable[[Sequence[Item]], dict[str, Tensor]]) -> None:
        self.rows, self.collator = rows, collator

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Tensor]:
        """Return one batch; each item has its `position`."""
        return self.collator([self.rows[int(item["position"])] for item in items])
