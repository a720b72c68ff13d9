"""A small random model for the engine: a body with one table for text, one for codes, and a head for each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel

NUM_WORDS, NUM_CODES, WIDTH = 40, 64, 48


class SmallModel:
    """Fits `illume_loop.engine.protocol.EngineModel`; counts the rows and positions that go through its body."""

    def __init__(self, num_kv_heads: int = 2, kind: str = "llama") -> None:
        torch.manual_seed(5)
        config = AutoConfig.for_model(
            kind,
            vocab_size=NUM_WORDS,
            hidden_size=WIDTH,
            intermediate_size=80,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=num_kv_heads,
            max_position_embeddings=256,
        )
        self.num_reports = 0
        self.body: nn.Module = AutoModel.from_config(config).eval()
        self.codes, self.head = torch.randn(NUM_CODES, WIDTH), torch.randn(NUM_CODES, WIDTH) * 0.3
        self.text_head = torch.randn(NUM_WORDS, WIDTH) * 0.3
        with torch.no_grad():
            for name, weight in self.body.named_parameters():
                if name.endswith("bias"):
                    weight.normal_()
                elif weight.ndim > 1:
                    weight.mul_(6.0)  # as initialised, logits are so nearly equal that a wrong one is not seen
        self.shapes: list[tuple[int, int]] = []
        self.body.register_forward_pre_hook(self._count, with_kwargs=True)

    def _count(self, body: nn.Module, arguments: object, named: dict[str, Tensor]) -> None:
        self.shapes.append((named["inputs_embeds"].shape[0], named["inputs_embeds"].shape[1]))

    def on_progress(self) -> None:
        self.num_reports += 1

    def embed_text(self, ids: Tensor) -> Tensor:
        embeds: Tensor = self.body.get_input_embeddings()(ids)
        return embeds

    def embed_image_ids(self, ids: Tensor) -> Tensor:
        return self.codes[ids]

    def image_logits(self, hidden_NH: Tensor) -> Tensor:
        return F.linear(hidden_NH, self.head)

    def text_logits(self, hidden_NH: Tensor, ids: Sequence[int] | None = None) -> Tensor:
        return F.linear(hidden_NH, self.text_head if ids is None else self.text_head[list(ids)])


@pytest.fixture
def small_model() -> SmallModel:
    return SmallModel()
