"""Greedy writing about images, in one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from illume_loop.models.illume.modeling import IllumeForConditionalGeneration


@torch.inference_mode()
def write_greedily(
    model: IllumeForConditionalGeneration,
    prefix: Sequence[int],
    image_features: Tensor,
    num_text_ids: int,
    eos: int,
    max_tokens: int,
) -> list[list[int]]:
    """Text ids for each image (B rows), the most probable one at each step, up to and without `eos`."""
    num_rows = image_features.shape[0]
    ids = torch.tensor([list(prefix)] * num_rows, device=image_features.device)
    head = model.lm_head.weight[:num_text_ids]
    cache = DynamicCache()
    embeds = model.model.embed(ids, image_features)
    ended = torch.zeros(num_rows, dtype=torch.bool, device=ids.device)
    written: list[Tensor] = []
    for _ in range(max_tokens):
        hidden = model.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
        next_B = (hidden[:, -1] @ head.T).argmax(dim=-1).masked_fill(ended, eos)
        ended |= next_B == eos
        if bool(ended.all()):
            break
        written.append(next_B)
        embeds = model.model.embed(next_B.unsqueeze(1), None)
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in range(num_rows)]
    return [row[: row.index(eos)] if eos in row else row for row in rows]
