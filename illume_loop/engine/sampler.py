"""Batched image sampling with a key-value cache, classifier-free guidance in one batch and seeded noise.

Works on any causal language model body over a unified vocabulary: it needs the body, the head's image rows and the
prefix ids, nothing of a backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from illume_loop.engine.noise import gumbel, signed
from illume_loop.engine.padding import left_pad
from illume_loop.models.protocol import Sampling


@torch.inference_mode()
def sample_image_ids(
    body: nn.Module,
    head_KH: Tensor,
    embed_image_ids: nn.Module,
    first_image_id: int,
    prefixes: Sequence[Sequence[int]],
    unconditional: Sequence[int],
    seeds: Sequence[int],
    sampling: Sampling,
    num_tokens: int,
    embed_prefixes: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Draw codebook ids (B, num_tokens).

    `head_KH` holds the head's rows of the image ids, so a text id can never be drawn. With guidance the
    log-probabilities are `s * (conditional - unconditional) + unconditional` for scale s (ILLUME+, arXiv 2504.01934);
    temperature and top-k apply once, to the guided ones. `embed_prefixes` is for prefixes that hold images: it takes
    the ids of all rows, with guidance first the prompts' and then as many unconditional ones.
    """
    guided = sampling.guidance_scale != 1.0
    rows = list(prefixes) + ([unconditional] * len(prefixes) if guided else [])
    ids, mask = left_pad(rows, head_KH.device)
    seeds_B = torch.tensor([signed(seed) for seed in seeds], device=head_KH.device)
    cache = DynamicCache()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    embeds = (embed_prefixes or embed_image_ids)(ids)
    drawn: list[Tensor] = []
    for position in range(num_tokens):
        output = body(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        logits = output.last_hidden_state[:, -1] @ head_KH.T
        next_B = _pick(logits.float(), len(prefixes), seeds_B, position, sampling)
        drawn.append(next_B)
        embeds = embed_image_ids(next_B + first_image_id).unsqueeze(1)
        if guided:
            embeds = torch.cat([embeds, embeds])
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return torch.stack(drawn, dim=1)


def guided_log_probs(logits: Tensor, num_rows: int, guidance_scale: float) -> Tensor:
    """Log-probabilities (num_rows, K): plain, or guided where unconditional rows follow the conditional ones."""
    log_probs = torch.log_softmax(logits, dim=-1)
    if len(logits) == num_rows:
        return log_probs
    conditional, unconditional = log_probs[:num_rows], log_probs[num_rows:]
    return guidance_scale * (conditional - unconditional) + unconditional


def _pick(logits: Tensor, num_rows: int, seeds_B: Tensor, position: int, sampling: Sampling) -> Tensor:
    """One id per row by the Gumbel-max trick, shape (num_rows,)."""
    scores = guided_log_probs(logits, num_rows, sampling.guidance_scale)
    if 0 < sampling.top_k < scores.shape[-1]:
        lowest = scores.topk(sampling.top_k, dim=-1).values[:, -1:]
        scores = scores.masked_fill(scores < lowest, float("-inf"))
    if sampling.temperature == 0.0:
        return scores.argmax(dim=-1)
    noise = gumbel(seeds_B, position, scores.shape[-1])
    return (scores / sampling.temperature + noise).argmax(dim=-1)
