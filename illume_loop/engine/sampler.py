"""Batched image sampling: guidance in one batch, one prefill for each different prefix, seeded noise.

Invariants:

- The noise of a row depends on its seed and the position only, so a row draws the same image in any batch.
- The loop looks at no value on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from illume_loop.engine.graphs import take_turns
from illume_loop.engine.noise import gumbel, signed
from illume_loop.engine.prefixes import batch_prefixes
from illume_loop.engine.protocol import EngineModel, Prefix
from illume_loop.engine.steps import begin_steps
from illume_loop.protocols import Sampling


@torch.inference_mode()
def sample_image_ids(
    model: EngineModel,
    prefixes: Sequence[Prefix],
    unconditional: Sequence[Prefix],
    seeds: Sequence[int],
    sampling: Sampling,
    num_tokens: int,
) -> Tensor:
    """Draw codebook ids (B, num_tokens), one image for each prefix and seed.

    `unconditional` has one prefix for each of `prefixes`, for guidance. With guidance of scale s, the logits are `s *
    (conditional - unconditional) + unconditional`. A mix of log-probabilities (ILLUME+, arXiv 2504.01934) would differ
    only by a constant of each row. Temperature, top-k and top-p apply once, to the guided logits, in this order.
    """
    return _drawn(model, prefixes, unconditional, seeds, sampling, num_tokens, scores_too=False)[0]


@torch.inference_mode()
def sample_scored_ids(
    model: EngineModel,
    prefixes: Sequence[Prefix],
    unconditional: Sequence[Prefix],
    seeds: Sequence[int],
    sampling: Sampling,
    num_tokens: int,
) -> tuple[Tensor, Tensor]:
    """Draw as `sample_image_ids` does; return the ids and their log-probabilities, both (B, num_tokens).

    A log-probability (float32, in nats) is that of the distribution that the id was drawn from, with guidance,
    temperature, top-k and top-p. The temperature must be above 0.
    """
    return _drawn(model, prefixes, unconditional, seeds, sampling, num_tokens, scores_too=True)


def _drawn(
    model: EngineModel,
    prefixes: Sequence[Prefix],
    unconditional: Sequence[Prefix],
    seeds: Sequence[int],
    sampling: Sampling,
    num_tokens: int,
    *,
    scores_too: bool,
) -> tuple[Tensor, Tensor]:
    """Draw ids (B, num_tokens) and, with `scores_too`, their log-probabilities; these are (B, 0) otherwise."""
    guided = sampling.guidance_scale != 1.0
    batch = batch_prefixes(model, [*prefixes, *unconditional] if guided else prefixes)
    seeds_B = torch.tensor([signed(seed) for seed in seeds], device=batch.mask.device)
    steps = begin_steps(model.body, batch, num_tokens - 1)
    hidden = steps.hidden.clone()
    drawn_BL = seeds_B.new_empty((len(prefixes), num_tokens))
    scored_BL = seeds_B.new_empty((len(prefixes), num_tokens if scores_too else 0), dtype=torch.float32)
    position = seeds_B.new_zeros(1)

    def draw() -> Tensor:
        scores_BK = scores_of(model.image_logits(hidden), sampling)
        ids_B = _picked(scores_BK, seeds_B, position, sampling)
        drawn_BL.index_copy_(1, position, ids_B.unsqueeze(1))
        if scores_too:
            log_probs_B1 = scores_BK.log_softmax(dim=-1).gather(1, ids_B.unsqueeze(1))
            scored_BL.index_copy_(1, position, log_probs_B1)
        position.add_(1)
        return ids_B

    def turn(extent: int) -> None:
        embeds = model.embed_image_ids(draw())
        hidden.copy_(steps.advance(torch.cat([embeds, embeds]) if guided else embeds, extent))

    take_turns(turn, steps.extents(num_tokens - 1), on_gpu=hidden.is_cuda, on_progress=model.on_progress)
    draw()
    return drawn_BL, scored_BL


def pick(logits: Tensor, seeds_B: Tensor, position: Tensor, sampling: Sampling) -> Tensor:
    """Pick one id (B,) for each row by the Gumbel-max trick; temperature 0 takes the most probable id.

    The logits are (B, K), or (2B, K) with guidance: the unconditional rows follow the conditional ones. The position is
    a tensor of one element.
    """
    return _picked(scores_of(logits, sampling), seeds_B, position, sampling)


def scores_of(logits: Tensor, sampling: Sampling) -> Tensor:
    """Return the scores (B, K), float32, whose softmax is the distribution that ids are drawn from.

    The logits are those of `pick`. At temperature 0 the scores are the guided logits.
    """
    scores = logits.float()
    if sampling.guidance_scale != 1.0:
        conditional, unconditional = scores.chunk(2)
        scores = torch.lerp(unconditional, conditional, sampling.guidance_scale)
    if sampling.temperature == 0.0:
        return scores
    scores = scores / sampling.temperature
    lowest = _lowest_kept(scores, sampling)
    return scores if lowest is None else scores.masked_fill(scores < lowest, float("-inf"))


def _picked(scores: Tensor, seeds_B: Tensor, position: Tensor, sampling: Sampling) -> Tensor:
    if sampling.temperature == 0.0:
        return scores.argmax(dim=-1)
    return (scores + gumbel(seeds_B, position, scores.shape[-1])).argmax(dim=-1)


def _lowest_kept(scores: Tensor, sampling: Sampling) -> Tensor | None:
    """Return the lowest score (B, 1) that top-k and top-p keep; None if they keep all."""
    num_ids = scores.shape[-1]
    top_k = sampling.top_k if 0 < sampling.top_k < num_ids else num_ids
    if top_k == num_ids and sampling.top_p >= 1.0:
        return None
    kept = scores.topk(top_k, dim=-1).values
    if sampling.top_p >= 1.0:
        return kept[:, -1:]
    probabilities = kept.softmax(dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    return kept.masked_fill(before >= sampling.top_p, float("inf")).amin(dim=-1, keepdim=True)
