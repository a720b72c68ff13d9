"""Stage `detokenizer`: a model's detokenizer learns to paint pictures from the ids of the frozen tokenizer.

The caller gives the pixels of each step. All random numbers follow from the seed and the step, so a stage that was
killed resumes to the same weights.
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
"""Returns a step's pixels, (B, 3, P, P) in [0, 1], which depend only on the step. P is the config's `painted_size`."""

REPLACED_IDS = 0.1
IMAGES_WITH_REPLACED_IDS = 0.5
"""The shares of ILLUME+ (arXiv 2504.01934, section 3.3). A language model errs in single ids; the detokenizer learns to
hide such errors."""


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
    """Train `vision.detokenizer`, or resume from `checkpoint`; the rest of `vision` stays frozen.

    The encoder sees pictures scaled to its size, and the detokenizer learns them at their own size. `normalise` turns
    pixels in [0, 1] into the encoder's input. With `replaces_ids`, about a tenth of the ids of about half the images
    are replaced.
    """
    vision.requires_grad_(False)
    detokenizer = vision.detokenizer.requires_grad_(True)
    like = next(vision.encoder.parameters())  # may be in half precision, while the detokenizer learns in float32

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
    """Return pixels (B, 3, S, S) in [0, 1], normalised as the processor's encoder expects."""
    mean = pixels.new_tensor(image_processor.image_mean)[:, None, None]
    std = pixels.new_tensor(image_processor.image_std)[:, None, None]
    return (pixels - mean) / std


def with_replaced_ids(ids_BL: Tensor, codebook_size: int, generator: torch.Generator) -> Tensor:
    """Return ids (B, L) with some of them replaced by random ones.

    An image is chosen with probability IMAGES_WITH_REPLACED_IDS, and each id of a chosen image with REPLACED_IDS.
    """
    touched_B1 = torch.rand(len(ids_BL), 1, generator=generator) < IMAGES_WITH_REPLACED_IDS
    replaced_BL = touched_B1 & (torch.rand(ids_BL.shape, generator=generator) < REPLACED_IDS)
    drawn_BL = torch.randint(codebook_size, ids_BL.shape, generator=generator)
    return torch.where(replaced_BL.to(ids_BL.device), drawn_BL.to(ids_BL), ids_BL)
