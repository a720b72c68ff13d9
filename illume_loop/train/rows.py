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
        _check_ids(self.image_ids)


@dataclass(frozen=True, slots=True)
class ReadRow:
    """Image to text: the model learns `caption` given the continuous features of `image` and, masked, `instruction`.

    Without an instruction it is a caption, with one the answer to it.
    """

    image: Image.Image
    caption: str
    instruction: str = ""
    kind: Literal["read"] = "read"


@dataclass(frozen=True, slots=True)
class PairRow:
    """A preference: of two images of one prompt, ids of shape (L,) each, the model learns to prefer `chosen_ids`."""

    prompt: str
    chosen_ids: ImageIds
    rejected_ids: ImageIds
    kind: Literal["pair"] = "pair"

    def __post_init__(self) -> None:
        _check_ids(self.chosen_ids)
        _check_ids(self.rejected_ids)


@dataclass(frozen=True, slots=True)
class CorrectRow:
    """Two turns about one image: the model learns `answer` given `image` and, masked, `instruction`; then `image_ids`
    (shape (L,)), the image as it should have been."""

    image: Image.Image
    instruction: str
    answer: str
    image_ids: ImageIds
    kind: Literal["correct"] = "correct"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


@dataclass(frozen=True, slots=True)
class EditRow:
    """An image made of another: the model learns `image_ids` (shape (L,)) given `image` and, masked, `instruction`."""

    image: Image.Image
    instruction: str
    image_ids: ImageIds
    kind: Literal["edit"] = "edit"

    def __post_init__(self) -> None:
        _check_ids(self.image_ids)


LikelyRow = DrawRow | ReadRow | CorrectRow | EditRow
"""A row that is to become more likely."""

TrainingRow = DrawRow | ReadRow | PairRow | CorrectRow | EditRow


def _check_ids(image_ids: ImageIds) -> None:
    if image_ids.ndim != 1 or image_ids.dtype != np.int32:
        raise ValueError("image_ids must be a one-dimensional int32 array")
