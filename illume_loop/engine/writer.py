"""Writing text, greedily or with seeded noise, in one batch of prefixes of any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache

from illume_loop.engine.noise import gumbel, signed
from illume_loop.engine.prefixes import batch_prefixes
from illume_loop.engine.protocol import EngineModel, Prefix


@torch.inference_mode()
def write_text(
    model: EngineModel,
    prefixes: Sequence[Prefix],
    eos: int,
    max_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[int] = (),
) -> list[list[int]]:
    """Text ids that follow each prefix, up to and without `eos`, `max_tokens` at most.

    At temperature 0 the most probable id is taken; otherwise the noise of a row depends on its seed and the position
    only.
    """
    batch = batch_prefixes(model, prefixes)
    embeds, mask, positions = (rows[batch.row_of] for rows in (batch.embeds, batch.mask, batch.positions))
    seeds_B = torch.tensor([signed(seed) for seed in seeds], device=mask.device)
    cache = DynamicCache()
    ended = torch.zeros(len(prefixes), dtype=torch.bool, device=mask.device)
    written: list[Tensor] = []
    for position in range(max_tokens):
        hidden = model.body(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        ).last_hidden_state
        scores = model.text_logits(hidden[:, -1]).float()
        if temperature > 0.0:
            scores = torch.log_softmax(scores, dim=-1) / temperature + gumbel(seeds_B, position, scores.shape[-1])
        next_B = scores.argmax(dim=-1).masked_fill(ended, eos)
        ended |= next_B == eos
        if bool(ended.all()):
            break
        written.append(next_B)
        embeds = model.embed_text(next_B).unsqueeze(1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        positions = positions[:, -1:] + 1
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in prefixes]
    return [row[: row.index(eos)] if eos in row else row for row in rows]
