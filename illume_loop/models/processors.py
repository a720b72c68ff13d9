"""The processors of checkpoints, and the conversion of images to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoImageProcessor
from transformers.image_processing_backends import PilBackend

from illume_loop.errors import UsageError


def load_processor(kind: Any, path: Path) -> Any:
    """Load a processor of the class `kind` from a checkpoint directory, with Pillow's image processor.

    Raises UsageError if transformers has no Pillow image processor for the checkpoint.
    """
    processor = kind.from_pretrained(path, local_files_only=True)
    # The call above would also pass `backend` to the tokenizer, which would save it in its configuration.
    processor.image_processor = pillow_processor(path)
    return processor


def pillow_processor(folder: Path) -> Any:
    """Load the Pillow image processor of a folder.

    Raises UsageError as `load_processor` does, and transformers' OSError and ValueError.
    """
    found = AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True, trust_remote_code=False)
    if not isinstance(found, PilBackend):  # transformers falls back to torchvision and only warns
        raise UsageError(
            f"transformers has no Pillow image processor for {folder}, only {type(found).__name__}; "
            "use a checkpoint whose image processor has one, such as SigLIP's, CLIP's or Janus's"
        )
    return found


def pixels_of(images: Sequence[Image.Image], processor: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Convert RGB images to normalised pixels (B, 3, S, S) as the image processor of transformers does."""
    side = (processor.size["width"], processor.size["height"])
    plain = processor.do_rescale and processor.do_normalize
    if not plain or any(image.mode != "RGB" or image.size != side for image in images):
        found: Tensor = processor(list(images), return_tensors="pt")["pixel_values"]
        return found.to(device, dtype)
    bytes_BSSC = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(device)
    # The image processor rescales in float64 too.
    scaled = (bytes_BSSC.permute(0, 3, 1, 2).double() * processor.rescale_factor).float()
    of_channels = processor.image_mean, processor.image_std
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in of_channels)
    normalised: Tensor = (scaled - mean) / std
    return normalised.to(dtype)
