"""Janus models of random weights in several sizes, built with transformers' own classes, for benchmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

from illume_loop.errors import UsageError

PAD, BOS, EOS, BEGIN_IMAGE, END_IMAGE, IMAGE = range(6)
"""Special ids; the ids of words follow."""
PATCH_SIZE = 16


@dataclass(frozen=True, slots=True)
class Size:
    """The widths and depths of a model; its vision encoder is half as wide as its language model, and as deep."""

    hidden: int
    layers: int
    heads: int
    mlp: int
    codebook: int
    vocabulary: int
    ids: int
    """Ids of one image: a square number."""


SIZES = {
    "tiny": Size(hidden=64, layers=2, heads=4, mlp=128, codebook=256, vocabulary=512, ids=16),
    "small": Size(hidden=512, layers=8, heads=8, mlp=1408, codebook=16_384, vocabulary=8_192, ids=576),
    "janus-pro-1b": Size(hidden=2048, layers=24, heads=16, mlp=5632, codebook=16_384, vocabulary=102_400, ids=576),
}


def random_janus(size: Size, device: str) -> Any:
    """Build a JanusForConditionalGeneration of random weights, in bf16 on a GPU, else in float32.

    The weights are so large that distributions are far from uniform: nearly equal logits would have no right order.
    Raises UsageError if `ids` is no square number.
    """
    side = math.isqrt(size.ids)
    if side * side != size.ids:
        raise UsageError(f"{size.ids} ids make no square image; take a square number, such as 144 or 576")
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=size.vocabulary,
            hidden_size=size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            intermediate_size=size.mlp,
            max_position_embeddings=4096,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=size.hidden // 2,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads // 2,
            image_size=side * PATCH_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=size.hidden,
            num_image_tokens=size.ids,
        ),
        vq_config=JanusVQVAEConfig(
            num_embeddings=size.codebook,
            base_channels=32,
            channel_multiplier=[1, 1, 1, 1, 2],
            num_res_blocks=1,
            num_patches=side,
            projection_dim=size.hidden,
            image_token_embed_dim=size.hidden,
        ),
        image_token_id=IMAGE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = JanusForConditionalGeneration(config).eval()
        with torch.no_grad():
            for part in (model.model.language_model.layers, model.model.generation_head, model.lm_head):
                for weight in part.parameters():
                    if weight.ndim > 1:
                        weight.normal_(std=2.0 / weight.shape[1] ** 0.5)
    model.generation_config = GenerationConfig(bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD)
    model.generation_config.generation_kwargs = {"boi_token_id": BEGIN_IMAGE}
    nn.Module.to(model, device, torch.bfloat16 if device.startswith("cuda") else torch.float32)
    return model


def words(count: int, seed: int, size: Size) -> list[int]:
    """Return `count` ids of words, chosen by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    ids: list[int] = torch.randint(IMAGE + 1, size.vocabulary, (count,), generator=generator).tolist()
    return ids
