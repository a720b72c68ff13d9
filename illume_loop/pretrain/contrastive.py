"""Stage `encoder`: a ViT with semantic features, trained as CLIP is.

A small SigLIP learns which caption ("red circle", "nothing") belongs to which slice of a picture. Only its vision tower
is kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig

from illume_loop.domains.shapes.render import CANVAS, CELL, draw
from illume_loop.domains.shapes.spec import COLORS, SHAPES
from illume_loop.models.illume.vision import to_slices
from illume_loop.pretrain.scenes import NOTHING, layouts, slice_captions, to_pixels

_WORDS = {word: index + 3 for index, word in enumerate([*COLORS, *SHAPES, NOTHING])}
_MAX_WORDS = 2
_MAX_SCALE = 50.0


def build_contrastive(vision: SiglipVisionConfig) -> SiglipModel:
    """Return a SigLIP with a vision tower of the given size and a text tower of the same width."""
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
    """Return the cross-entropy of each slice over the distinct captions of the batch (Radford et al. 2021).

    Only the direction from slice to caption is used. Many slices share a caption, so the other direction has no single
    answer. Most of a canvas is empty, so an empty slice is kept only if it is the first slice of its picture.
    """
    scenes = layouts(seed, "encoder", step, batch_size)
    slices = to_slices(to_pixels([draw(layout) for layout in scenes]) * 2 - 1, CANVAS // CELL)
    captions = [caption for layout in scenes for caption in slice_captions(layout)]
    kept = [i for i, caption in enumerate(captions) if caption != NOTHING or i % len(slice_captions([])) == 0]
    distinct = list(dict.fromkeys(captions[i] for i in kept))
    words = [[_WORDS[word] for word in caption.split()] for caption in distinct]
    ids = torch.tensor([caption + [0] * (_MAX_WORDS - len(caption)) for caption in words])
    output = model(input_ids=ids, pixel_values=slices[kept])
    logits = output.image_embeds @ output.text_embeds.T * model.logit_scale.exp().clamp(max=_MAX_SCALE)
    return F.cross_entropy(logits, torch.tensor([distinct.index(captions[i]) for i in kept]))
