"""Readings: how an assessor's score comes out of a model.

A reading is a function of images and prompts to one score per image, higher for a better match. Scores of one reading
are comparable between images of the same prompt, which is all that rejection sampling needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from PIL import Image

from illume_loop.errors import NotFoundError
from illume_loop.models.protocol import UnifiedModel

Reading = Callable[[UnifiedModel, Sequence[Image.Image], Sequence[str]], list[float]]


def prompt_likelihood(model: UnifiedModel, images: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
    """log p(prompt | image) in nats, end-of-text included so that a prompt is not matched by a longer one's start."""
    return [float(score) for score in model.log_likelihood(images, prompts)]


READINGS: Mapping[str, Reading] = {"prompt-likelihood": prompt_likelihood}


def score_batch(
    model: UnifiedModel, images: Sequence[Image.Image], prompts: Sequence[str], reading: str
) -> list[float]:
    """Scores of one batch by the reading's name. Raises NotFoundError for a name that no reading has."""
    if reading not in READINGS:
        raise NotFoundError(kind="reading", name=reading)
    return READINGS[reading](model, images, prompts)
