"""The common parts of models over a unified vocabulary, for training and for the engine.

Shape suffixes: `_B` batch, `_T` positions, `_H` hidden, `_V` vocabulary, `_N` anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import CausalLMOutputWithPast

from illume_loop.engine.cache import OUTPUT_FIELD
from illume_loop.engine.matrices import float32_logits
from illume_loop.hooks import OnProgress, ignore
from illume_loop.models.sequences import IGNORED_LABEL


def with_features(
    embeds_BTH: Tensor, slots_BT: Tensor, features_NLH: Tensor | None, adapter: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return embeddings with adapted image features at the positions that `slots_BT` marks.

    Raises ValueError if there are more or fewer features than positions.
    """
    num_slots = int(slots_BT.sum())
    num_features = 0 if features_NLH is None else features_NLH.shape[0] * features_NLH.shape[1]
    if num_slots != num_features:
        raise ValueError(f"{num_slots} image placeholders but {num_features} image features")
    if features_NLH is None:
        return embeds_BTH
    adapted = adapter(features_NLH.to(embeds_BTH.dtype)).reshape(-1, embeds_BTH.shape[-1])
    return embeds_BTH.masked_scatter(slots_BT.unsqueeze(-1), adapted)


def causal_output(output: Any, logits_BTV: Tensor, labels_BT: Tensor | None) -> CausalLMOutputWithPast:
    """Return the logits, and with labels the next-token loss over those that are not `IGNORED_LABEL`."""
    loss = None
    if labels_BT is not None:
        loss = F.cross_entropy(
            logits_BTV[:, :-1].flatten(0, 1).float(), labels_BT[:, 1:].flatten(), ignore_index=IGNORED_LABEL
        )
    return CausalLMOutputWithPast(loss=loss, logits=logits_BTV, **{OUTPUT_FIELD: getattr(output, OUTPUT_FIELD)})


class Language(ABC):
    """A unified model's language model as the engine uses it; see `illume_loop.engine.protocol.EngineModel`."""

    def __init__(self, model: Any) -> None:
        self.on_progress: OnProgress = ignore
        self._model = model

    @property
    def body(self) -> nn.Module:
        """The decoder; see `EngineModel.body`."""
        body: nn.Module = self._model.model.language_model
        return body

    def embed_text(self, ids: Tensor) -> Tensor:
        """Return the input embeddings of text ids."""
        embeds: Tensor = self._model.get_input_embeddings()(ids)
        return embeds

    def text_logits(self, hidden_NH: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        """Return the float32 logits (N, V) over the text ids, or over some of them."""
        rows = self._text_rows()
        return float32_logits(hidden_NH, rows if ids is None else rows[list(ids)])

    @abstractmethod
    def _text_rows(self) -> Tensor:
        """Return the head's rows (V, H) of text ids."""
