"""Prefixes of any length as one batch, in which equal prefixes have one row."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from illume_loop.engine.protocol import EngineModel, Prefix


@dataclass(frozen=True, slots=True)
class PrefixBatch:
    """Different prefixes, padded on the left: embeddings (U, T, H), and the mask (U, T), which is 0 at padding, else 1.

    `row_of` (N,) is the row of each prefix that was asked for.
    """

    embeds: Tensor
    mask: Tensor
    row_of: Tensor

    @property
    def positions(self) -> Tensor:
        """Position ids (U, T), counted from the first id of each row."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)


def batch_prefixes(model: EngineModel, prefixes: Sequence[Prefix]) -> PrefixBatch:
    """Return prefixes as one batch, in the order of their first appearance."""
    device = next(model.body.parameters()).device
    different: dict[Hashable, Prefix] = {}
    keys = [_key(prefix) for prefix in prefixes]
    for key, prefix in zip(keys, prefixes, strict=True):
        different.setdefault(key, prefix)
    places = {key: place for place, key in enumerate(different)}
    rows = _embedded(model, list(different.values()), device)
    length = max(map(len, rows))
    embeds = rows[0].new_zeros((len(rows), length, rows[0].shape[-1]))
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for place, row in enumerate(rows):
        embeds[place, length - len(row) :] = row
        mask[place, length - len(row) :] = 1
    return PrefixBatch(embeds, mask.to(device), torch.tensor([places[key] for key in keys], device=device))


def _key(prefix: Prefix) -> Hashable:
    return id(prefix) if isinstance(prefix, Tensor) else tuple(prefix)


def _embedded(model: EngineModel, prefixes: Sequence[Prefix], device: torch.device) -> list[Tensor]:
    """Return each prefix as (T, H); all ids are embedded at once."""
    ids = [[] if isinstance(prefix, Tensor) else list(prefix) for prefix in prefixes]
    flat = model.embed_text(torch.tensor([i for row in ids for i in row], dtype=torch.long, device=device))
    of_ids = flat.split([len(row) for row in ids])
    return [prefix if isinstance(prefix, Tensor) else row for prefix, row in zip(prefixes, of_ids, strict=True)]
