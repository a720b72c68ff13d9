"""Janus as the engine uses it; see `illume_loop.engine.protocol`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from illume_loop.engine.matrices import PackedLinear, float32_logits
from illume_loop.hooks import OnProgress, ignore


class JanusLanguage:
    """The language model of a Janus, with its two ways in and its two heads."""

    def __init__(self, model: JanusForConditionalGeneration) -> None:
        self.on_progress: OnProgress = ignore
        self._model = model
        head = model.model.generation_head
        self._activation: nn.Module = head.activation_fn
        self._image_head = [
            PackedLinear.of(linear, dtype=torch.float32) for linear in (head.proj_out, head.vision_head)
        ]

    @property
    def body(self) -> nn.Module:
        """The decoder; see `EngineModel.body`."""
        body: nn.Module = self._model.model.language_model
        return body

    def embed_text(self, ids: Tensor) -> Tensor:
        """Text ids to input embeddings."""
        embeds: Tensor = self._model.get_input_embeddings()(ids)
        return embeds

    def embed_image_ids(self, ids: Tensor) -> Tensor:
        """Codebook ids to input embeddings, through their own embedding and aligner."""
        embeds: Tensor = self._model.prepare_embeddings_for_image_generation(ids)
        return embeds

    def image_logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits (N, K) over the codebook, in float32 through both layers."""
        first, second = (linear.refresh() for linear in self._image_head)
        return second(self._activation(first(hidden_NH)))

    def text_logits(self, hidden_NH: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """Logits (N, V) over the text ids, or over some of them, in float32."""
        weight: Tensor = self._model.lm_head.weight
        return float32_logits(hidden_NH, weight if ids is None else weight[list(ids)])
