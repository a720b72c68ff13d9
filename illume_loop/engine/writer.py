"""Writing of text, greedy or with seeded noise, in one batch of prefixes of any length."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from illume_loop.engine.noise import gumbel, signed
from illume_loop.engine.prefixes import batch_prefixes
from illume_loop.engine.protocol import EngineModel, Prefix
from illume_loop.engine.steps import begin_steps


@torch.inference_mode()
def write_text(
    model: EngineModel,
    prefixes: Sequence[Prefix],
    eos: int,
    max_tokens: int,
    temperature: float = 0.0,
    seeds: Sequence[int] = (),
) -> list[list[int]]:
    """Write text after each prefix, `max_tokens` ids at most; return its ids, up to and without `eos`.

    Temperature 0 takes the most probable id. Otherwise the noise of a row depends on its seed and the position only.
    """
    batch = batch_prefixes(model, prefixes)
    seeds_B = torch.tensor([signed(seed) for seed in seeds], device=batch.mask.device)
    steps = begin_steps(model.body, batch, max_tokens)
    hidden = steps.hidden
    ended = torch.zeros(len(prefixes), dtype=torch.bool, device=batch.mask.device)
    written: list[Tensor] = []
    for position, extent in enumerate(steps.extents(max_tokens)):
        scores = model.text_logits(hidden).float()
        if temperature > 0.0:
            scores = torch.log_softmax(scores, dim=-1) / temperature + gumbel(seeds_B, position, scores.shape[-1])
        next_B = scores.argmax(dim=-1).masked_fill(ended, eos)
        ended |= next_B == eos
        if bool(ended.all()):
            break
        written.append(next_B)
        model.on_progress()
        hidden = steps.advance(model.embed_text(next_B), extent)
    rows = torch.stack(written, dim=1).tolist() if written else [[] for _ in prefixes]
    return [row[: row.index(eos)] if eos in row else row for row in rows]
