"""The protocol of a model in the engine: a body, inputs for text ids and image ids, and logits over each.

A backend implements it for its own model; the engine imports no backend. All methods are plain tensor functions. They
do not look at values on the host, because they run inside the drawing loop.

Shape suffixes: `_N` anything, `_B` batch, `_T` positions, `_H` hidden, `_K` codebook, `_V` text vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from illume_loop.hooks import OnProgress

Prefix = Sequence[int] | Tensor
"""The context before anything drawn, written or read: text ids, or input embeddings (T, H) if it holds images.

Prefixes that are equal as ids, or that are the same tensor object, go through the model once.
"""


class EngineModel(Protocol):
    """A model as the engine uses it; its weights are in evaluation mode and on one device.

    The engine calls `on_progress` after each batch, and every few positions while it draws or writes.
    """

    on_progress: OnProgress

    @property
    def body(self) -> nn.Module:
        """The decoder of transformers without its head.

        It takes `inputs_embeds`, `attention_mask`, `position_ids`, `use_cache` and a cache (`cache`, or
        `past_key_values`), and returns `last_hidden_state`.
        """
        ...

    def embed_text(self, ids: Tensor) -> Tensor:
        """Return the input embeddings of text ids of any shape; their shape is that of the ids plus (H,)."""
        ...

    def embed_image_ids(self, ids: Tensor) -> Tensor:
        """Return the input embeddings of codebook ids 0..K-1, as drawn; their shape is that of the ids plus (H,)."""
        ...

    def image_logits(self, hidden_NH: Tensor) -> Tensor:
        """Return the logits (N, K) of hidden states over the codebook alone, so that nothing else can be drawn.

        They are float32, even if the weights are kept in a lower precision, because guidance multiplies rounding
        errors.
        """
        ...

    def text_logits(self, hidden_NH: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """Return the float32 logits of hidden states over all text ids (N, V), or over `ids` (N, len(ids))."""
        ...
