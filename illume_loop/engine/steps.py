"""Decoding position by position behind prefixes; equal prefixes go through the model once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from illume_loop.engine.cache import as_argument
from illume_loop.engine.graphs import STRETCH
from illume_loop.engine.llama import LlamaSteps, can_step
from illume_loop.engine.prefixes import PrefixBatch


class Steps(Protocol):
    """The decoding of rows that was begun with room for a number of positions."""

    @property
    def hidden(self) -> Tensor:
        """The hidden states (R, H) after the prefixes."""
        ...

    def extents(self, num_steps: int) -> list[int]:
        """Return a number for each of the first steps; consecutive steps of one number run the same kernels."""
        ...

    def advance(self, embeds_RH: Tensor, extent: int) -> Tensor:
        """Return the hidden states (R, H) after one more position, from the rows' embeddings and the step's extent."""
        ...


def begin_steps(body: nn.Module, batch: PrefixBatch, num_steps: int) -> Steps:
    """Send prefixes through a body and prepare `num_steps` more positions, in the fast way if the body has one."""
    if not can_step(body):
        return TransformersSteps(body, batch)
    return LlamaSteps(body, batch, num_steps, stretch=STRETCH if batch.embeds.is_cuda else 1)


class TransformersSteps:
    """The decoding by any body of transformers, with its own forward and its growing cache."""

    def __init__(self, body: nn.Module, batch: PrefixBatch) -> None:
        """Send the prefixes through the body."""
        self._body, self._cache = body, DynamicCache()
        hidden = self._forward(batch.embeds, batch.mask, batch.positions)
        self._cache.batch_select_indices(batch.row_of)
        self._mask = batch.mask[batch.row_of]
        self._positions = self._mask.sum(1, keepdim=True)
        self.hidden = hidden[batch.row_of, -1]

    def extents(self, num_steps: int) -> list[int]:
        """Return a different number for each step, because the cache grows with each step."""
        return list(range(num_steps))

    def advance(self, embeds_RH: Tensor, extent: int) -> Tensor:
        """Return the hidden states (R, H) after one more position."""
        del extent  # the cache knows its own length
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        hidden = self._forward(embeds_RH.unsqueeze(1), self._mask, self._positions)
        self._positions = self._positions + 1
        return hidden[:, 0]

    def _forward(self, embeds: Tensor, mask: Tensor, positions: Tensor) -> Tensor:
        hidden: Tensor = self._body(
            inputs_embeds=embeds,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            **as_argument(self._body, self._cache),
        ).last_hidden_state
        return hidden
