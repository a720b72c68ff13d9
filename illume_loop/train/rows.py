"""The rows that a manifest holds and a trainer learns from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

from illume_loop.models.protocol import ImageIds


@dataclass(frozen=True, slots=True)
class DrawRow:
    """Text to image: the model learns `image_ids` (shape (L,)) given `prompt`; the prompt itself is masked."""

    prompt: str
    image_ids: ImageIds
    kind: Literal["draw"] = "draw"

    def __post_init__(self) -> None:
        if self.image_ids.ndim != 1 or self.image_ids.dtype != np.int32:
            raise ValueError("image_ids must be a one-dimensional int32 array")


@dataclass(frozen=True, slots=True)
class ReadRow:
    """Image to text: the model learns `caption` given the continuous features of `image`."""

    image: Image.Image
    caption: str
    kind: Literal["read"] = "read"


TrainingRow = DrawRow | ReadRow
