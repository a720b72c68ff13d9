"""The language model of ILLUME as the engine uses it; see `illume_loop.engine.protocol`."""

from __future__ import annotations

import torch
from torch import Tensor

from illume_loop.engine.matrices import PackedLinear
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration
from illume_loop.models.unified import Language


class IllumeLanguage(Language):
    """The language model of an ILLUME model, which tells text ids and image ids apart in its unified vocabulary."""

    def __init__(self, model: IllumeForConditionalGeneration) -> None:
        super().__init__(model)
        self._image_head = PackedLinear(
            lambda: [model.lm_head.weight[model.config.num_text_ids :]], dtype=torch.float32
        )

    def embed_image_ids(self, ids: Tensor) -> Tensor:
        """Return the input embeddings of codebook ids."""
        return self.embed_text(ids + self._model.config.num_text_ids)

    def image_logits(self, hidden_NH: Tensor) -> Tensor:
        """Return the float32 logits (N, K) over the codebook."""
        return self._image_head.refresh()(hidden_NH)

    def _text_rows(self) -> Tensor:
        rows: Tensor = self._model.lm_head.weight[: self._model.config.num_text_ids]
        return rows
