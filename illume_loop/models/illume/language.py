"""The illume model as the engine uses it; see `illume_loop.engine.protocol`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from illume_loop.engine.matrices import PackedLinear, float32_logits
from illume_loop.hooks import OnProgress, ignore
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration


class IllumeLanguage:
    """The language model of an ILLUME model, with text and image ids told apart in its unified vocabulary."""

    def __init__(self, model: IllumeForConditionalGeneration) -> None:
        self.on_progress: OnProgress = ignore
        self._model = model
        self._image_head = PackedLinear(
            lambda: [model.lm_head.weight[model.config.num_text_ids :]], dtype=torch.float32
        )

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
        """Codebook ids to input embeddings."""
        return self.embed_text(ids + self._model.config.num_text_ids)

    def image_logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits (N, K) over the codebook, in float32."""
        return self._image_head.refresh()(hidden_NH)

    def text_logits(self, hidden_NH: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """Logits (N, V) over the text ids, or over some of them, in float32."""
        rows: Tensor = self._model.lm_head.weight[: self._model.config.num_text_ids]
        return float32_logits(hidden_NH, rows if ids is None else rows[list(ids)])
