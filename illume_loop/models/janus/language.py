"""The language model of Janus as the engine uses it; see `illume_loop.engine.protocol`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import JanusForConditionalGeneration

from illume_loop.engine.matrices import PackedLinear
from illume_loop.models.unified import Language


class JanusLanguage(Language):
    """The language model of a Janus, with one input and one head for each kind of id."""

    def __init__(self, model: JanusForConditionalGeneration) -> None:
        super().__init__(model)
        head = model.model.generation_head
        self._activation: nn.Module = head.activation_fn
        self._image_head = [
            PackedLinear.of(linear, dtype=torch.float32) for linear in (head.proj_out, head.vision_head)
        ]

    def embed_image_ids(self, ids: Tensor) -> Tensor:
        """Return the input embeddings of codebook ids, through the embedding and aligner of these ids."""
        embeds: Tensor = self._model.prepare_embeddings_for_image_generation(ids)
        return embeds

    def image_logits(self, hidden_NH: Tensor) -> Tensor:
        """Return the logits (N, K) over the codebook; both layers of the head run in float32."""
        first, second = (linear.refresh() for linear in self._image_head)
        return second(self._activation(first(hidden_NH)))

    def _text_rows(self) -> Tensor:
        rows: Tensor = self._model.lm_head.weight
        return rows
