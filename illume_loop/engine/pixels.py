"""Images as the vision encoder takes them, a batch at a time and on the model's device.

Guarantee: the numbers are those of transformers' own Pillow processor, bit by bit. Images of the right size, as all are
that the model drew itself, go from their bytes to the device as one tensor; others go through the processor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def pixels_of(images: Sequence[Image.Image], processor: Any, device: torch.device, dtype: torch.dtype) -> Tensor:
    """RGB images to normalised pixels (B, 3, S, S); `processor` is an image processor of transformers."""
    side = (processor.size["width"], processor.size["height"])
    plain = processor.do_rescale and processor.do_normalize
    if not plain or any(image.mode != "RGB" or image.size != side for image in images):
        found: Tensor = processor(list(images), return_tensors="pt")["pixel_values"]
        return found.to(device, dtype)
    bytes_BSSC = torch.from_numpy(np.stack([np.asarray(image) for image in images])).to(device)
    # In float64 first, as the processor does it.
    scaled = (bytes_BSSC.permute(0, 3, 1, 2).double() * processor.rescale_factor).float()
    of_channels = processor.image_mean, processor.image_std
    mean, std = (torch.tensor(values, device=device)[:, None, None] for values in of_channels)
    normalised: Tensor = (scaled - mean) / std
    return normalised.to(dtype)
