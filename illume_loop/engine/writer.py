"""Writing text, greedily or with seeded noise, in one batch of prefixes of any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from illume_loop.engine.noise import gumbel, signed
from illume_loop.engine.padding import left_pad
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration


@torch.inference_mode()
def write_text(
    model: IllumeForConditionalGeneration,
    prefixes: Sequence[Sequence[int]],
    image_features: Tensor | None,
    eos: int,
    max_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[int] = (),
) -> list[list[int]]:
    """Text ids that follow each prefix, up to and without `eos`, `max_tokens` at most.

    At temperature 0 the most probable id is taken; otherwise the noise of a row depends on its seed and the position
    only. `image_features` (N, L, H) are those of the placeholders in the prefixes, in order.
    """
    device = model.lm_head.weight.device
    head = model.lm_head.weight[: model.config.num_text_ids]
    seeds_B = torch.tensor([signed(seed) for seed in seeds], device=device)
    ids, mask = left_pad(prefixes, device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache()
    embeds = model.model.embed(ids, image_features)
    ended = torch.zeros(len(prefixes), dtype=torch.bool, device=device)
    written: list[Tensor] = []
    for position in range(max_tokens):
        hidden = model.model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        scores = (hidden[:, -1] @ head.T).float()
        if temperature > 0.0:
            scores = torch.log_softmax(scores, dim=-1) / temperature + gumbel(seeds_B, position, scores.shape[-1])
        next_B = scores.argmax(dim=-1).masked_fill(ended, eos)
        ended |= next_B == eos
        if bool(ended.all()):
            break
        written.append(next_B)
        embeds = model.model.embed(next_B.unsqueeze(1), None)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in prefixes]
    return [row[: row.index(eos)] if eos in row else row for row in rows]
