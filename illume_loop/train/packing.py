"""The packing of short rows into one, so that a batch of rows of different lengths holds little padding.

Invariants:
- A packed batch has the labels of the plain batch.
- Each row attends only to itself. The positions begin at 0 for each row, and transformers makes a block mask from them
  if there is no attention mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from illume_loop.models.sequences import IGNORED_LABEL

Item = dict[str, Any]
Collator = Callable[[Sequence[Item]], dict[str, Tensor]]


class PackingCollator:
    """A collator that packs the rows that `collate` would pad.

    The order of the rows changes. The images to read follow the new order.
    """

    def __init__(self, collate: Collator, pad: int) -> None:
        self.collate, self.pad = collate, pad

    def __call__(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """Return one batch: `input_ids`, `labels`, `position_ids`, each (bins, T), and the other keys of `collate`."""
        bins = first_fit([len(item["input_ids"]) for item in items])
        batch = self.collate([items[index] for of_bin in bins for index in of_bin])
        length = max(sum(len(items[index]["input_ids"]) for index in of_bin) for of_bin in bins)
        shape = (len(bins), length)
        ids, labels = torch.full(shape, self.pad), torch.full(shape, IGNORED_LABEL)
        # The padding at the end of a bin counts as a row of its own.
        positions = torch.zeros(shape, dtype=torch.long)
        for row, of_bin in enumerate(bins):
            start = 0
            for index in of_bin:
                stop = start + len(items[index]["input_ids"])
                ids[row, start:stop] = torch.tensor(items[index]["input_ids"])
                # The first id of a row is not a label: the id before it is the end of another row.
                labels[row, start + 1 : stop] = torch.tensor(items[index]["labels"][1:])
                positions[row, start:stop] = torch.arange(stop - start)
                start = stop
            positions[row, start:] = torch.arange(length - start)
        del batch["attention_mask"]
        return batch | {"input_ids": ids, "labels": labels, "position_ids": positions}


def first_fit(lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices of rows in bins as long as the longest row. The longest rows are placed first."""
    room: list[int] = []
    bins: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        place = next((place for place, left in enumerate(room) if left >= lengths[index]), None)
        if place is None:
            room.append(max(lengths))
            bins.append([])
            place = len(bins) - 1
        room[place] -= lengths[index]
        bins[place].append(index)
    return bins
