"""Stage `encoder`: a ViT with semantic features, trained the way CLIP is.

The vision tower of a small SigLIP learns to tell which dense caption (every object with colour, shape, row and column)
belongs to which picture of a batch. Only the vision tower is kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig

from illume_loop.domains.shapes.render import draw
from illume_loop.domains.shapes.spec import COLORS, SHAPES
from illume_loop.pretrain.scenes import COLUMNS, ROWS, dense_caption, layouts, to_pixels

_WORDS = {word: index + 3 for index, word in enumerate([*COLORS, *SHAPES, *ROWS, *COLUMNS])}
_MAX_WORDS = 24
_MAX_SCALE = 50.0


def build_contrastive(vision: SiglipVisionConfig) -> SiglipModel:
    """Vision tower of the given size beside a text tower of the same width."""
    text = {
        "hidden_size": vision.hidden_size,
        "intermediate_size": vision.intermediate_size,
        "num_hidden_layers": 2,
        "num_attention_heads": vision.num_attention_heads,
        "vocab_size": len(_WORDS) + 3,
        "max_position_embeddings": _MAX_WORDS,
        "projection_size": vision.hidden_size,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision.to_dict()))
    model.logit_scale.data.fill_(math.log(12.0))
    return model


def contrastive_loss(model: SiglipModel, seed: int, step: int, batch_size: int) -> Tensor:
    """Symmetric cross-entropy over the batch (Radford et al. 2021)."""
    scenes, rng = layouts(seed, "encoder", step, batch_size)
    pixels = to_pixels([draw(layout) for layout in scenes]) * 2 - 1
    captions = [[_WORDS[word] for word in dense_caption(layout, rng).split()] for layout in scenes]
    ids = torch.tensor([caption + [0] * (_MAX_WORDS - len(caption)) for caption in captions])
    output = model(input_ids=ids, pixel_values=pixels)
    logits = output.image_embeds @ output.text_embeds.T * model.logit_scale.exp().clamp(max=_MAX_SCALE)
    target = torch.arange(batch_size)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
