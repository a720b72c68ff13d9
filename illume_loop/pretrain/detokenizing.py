"""Stage `detokenizer`: whichever detokenizer a model has learns to paint what its frozen tokenizer made of pictures.

Pictures come from anywhere: a source gives the pixels of a step. Every random number follows from the step too, so that
a stage that was killed goes on to the same weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from illume_loop.models.illume.detokenizer import Detokenizer
from illume_loop.models.illume.vision import VisionTokenizer
from illume_loop.pretrain.stepper import ParameterGroup, Progress, train_stage

PixelBatches = Callable[[int], Tensor]
"""The pixels (B, 3, P, P) in [0, 1] of a step, and of nothing else; P is the configuration's `painted_size`."""

REPLACED_IDS = 0.1
IMAGES_WITH_REPLACED_IDS = 0.5
"""As in ILLUME+ (arXiv 2504.01934, section 3.3): a language model errs in single ids, and these should not show."""


def train_detokenizer(
    vision: VisionTokenizer,
    pixels_at: PixelBatches,
    *,
    steps: int,
    learning_rate: float,
    checkpoint: Path,
    on_progress: Progress,
    seed: int = 0,
    replaces_ids: bool = False,
    normalise: Callable[[Tensor], Tensor] = lambda pixels: pixels * 2 - 1,
) -> None:
    """Train `vision.detokenizer`, or finish it from `checkpoint`; nothing else of `vision` moves.

    Pictures larger than the encoder takes are scaled down for it, and learned as they are; `normalise` makes of pixels
    in [0, 1] what the encoder has learned to read. With `replaces_ids`, a tenth of the ids of half the images are
    others.
    """
    vision.requires_grad_(False)
    detokenizer = vision.detokenizer.requires_grad_(True)
    like = next(vision.encoder.parameters())  # which may be of half precision, in which no detokenizer learns

    def loss_at(step: int) -> Tensor:
        pixels = pixels_at(step).to(like.device)
        generator = torch.Generator().manual_seed(seed << 32 | step)
        with torch.no_grad():
            seen = normalise(F.interpolate(pixels, size=vision.image_size, mode="area"))
            ids = vision.encode(seen.to(like.dtype))
            if replaces_ids:
                ids = with_replaced_ids(ids, len(vision.quantizer.codebook), generator)
            features = vision.quantizer.decode(ids).to(pixels.dtype)
        return cast(Detokenizer, detokenizer).loss(features, pixels, generator)

    groups = [ParameterGroup(list(detokenizer.parameters()), learning_rate)]
    train_stage("detokenizer", detokenizer, groups, loss_at, steps, checkpoint, on_progress)
    detokenizer.requires_grad_(False)


def normalised(image_processor: Any, pixels: Tensor) -> Tensor:
    """Pixels (B, 3, S, S) in [0, 1] as the encoder of a processor has learned to read them."""
    mean = pixels.new_tensor(image_processor.image_mean)[:, None, None]
    std = pixels.new_tensor(image_processor.image_std)[:, None, None]
    return (pixels - mean) / std


def with_replaced_ids(ids_BL: Tensor, codebook_size: int, generator: torch.Generator) -> Tensor:
    """Ids (B, L) with REPLACED_IDS of those of IMAGES_WITH_REPLACED_IDS of the images drawn anew."""
    touched_B1 = torch.rand(len(ids_BL), 1, generator=generator) < IMAGES_WITH_REPLACED_IDS
    replaced_BL = touched_B1 & (torch.rand(ids_BL.shape, generator=generator) < REPLACED_IDS)
    drawn_BL = torch.randint(codebook_size, ids_BL.shape, generator=generator)
    return torch.where(replaced_BL.to(ids_BL.device), drawn_BL.to(ids_BL), ids_BL)
