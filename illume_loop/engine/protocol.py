"""What the engine needs of a model: a body, ways in for ids of text and of images, and ways out as logits of either.

A backend offers this of its own model; the engine imports no backend. All methods are plain tensor functions without a
look at values on the host, as they run inside the loop that draws.

Shape suffixes: `_N` anything, `_B` batch, `_T` positions, `_H` hidden, `_K` codebook, `_V` text vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn

from illume_loop.hooks import OnProgress

Prefix = Sequence[int] | Tensor
"""What stands before anything drawn, written or read: ids of text, or input embeddings (T, H) where there are images.

Prefixes that are equal as ids, or that are the same tensor object, go through the model once.
"""


class EngineModel(Protocol):
    """One model as the engine uses it; its weights are in evaluation mode and on one device.

    The engine calls `on_progress` after each batch, and while it draws or writes after each few positions.
    """

    on_progress: OnProgress

    @property
    def body(self) -> nn.Module:
        """A decoder of transformers without its head.

        It takes `inputs_embeds`, `attention_mask`, `position_ids`, `use_cache` and a cache (`cache`, or
        `past_key_values`), and returns `last_hidden_state`.
        """
        ...

    def embed_text(self, ids: Tensor) -> Tensor:
        """Text ids of any shape to input embeddings of that shape plus (H,)."""
        ...

    def embed_image_ids(self, ids: Tensor) -> Tensor:
        """Codebook ids 0..K-1 of any shape, as drawn, to input embeddings of that shape plus (H,)."""
        ...

    def image_logits(self, hidden_NH: Tensor) -> Tensor:
        """Hidden states to logits (N, K) over the codebook alone, so that nothing else can be drawn.

        In float32, also where the weights are kept in less: guidance multiplies what a logit is rounded by.
        """
        ...

    def text_logits(self, hidden_NH: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """Hidden states to logits (N, V) over the text ids alone, or (N, len(ids)) over those of them, in float32."""
        ...
