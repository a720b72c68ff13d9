"""The suites that measure a model: alignment of its draws, understanding of images, edits, and diversity of its draws.

Invariants:
- A suite depends on its arguments only, so a parent and a candidate are compared on the same prompts with the same
  noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
from PIL import Image

from illume_loop.hooks import OnProgress, ignore
from illume_loop.protocols import Domain, EditProbe, ImageIds, Prompt, Sampling, UnifiedModel, Verdict, encoded_once

OnItems = Callable[[int, int], None]
"""A function that is called with (items done, items in all)."""


class Drawn:
    """The held-out draws of one model: image, ids and the checker's verdict for each prompt."""

    def __init__(self, images: list[Image.Image], image_ids_BL: ImageIds, verdicts: list[Verdict]) -> None:
        self.images, self.image_ids_BL, self.verdicts = images, image_ids_BL, verdicts

    @property
    def passed(self) -> list[bool]:
        """True for each image that the checker accepts."""
        return [verdict.passed for verdict in self.verdicts]


def alignment(
    model: UnifiedModel,
    domain: Domain,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    sampling: Sampling,
    batch_size: int,
    on_items: OnItems = lambda *_: None,
    on_progress: OnProgress = ignore,
) -> Drawn:
    """Draw one image for each prompt and let the checker decide; call `on_progress` after each checked image.

    Raises NoCheckerError.
    """
    images, image_ids_BL = draw(model, prompts, seeds, sampling, batch_size, on_items)
    verdicts = []
    for image, prompt in zip(images, prompts, strict=True):
        verdicts.append(domain.check(image, prompt))
        on_progress()
    return Drawn(images, image_ids_BL, verdicts)


def draw(
    model: UnifiedModel,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    sampling: Sampling,
    batch_size: int,
    on_items: OnItems = lambda *_: None,
) -> tuple[list[Image.Image], ImageIds]:
    """Draw one image for each prompt; return the images and their ids."""
    images: list[Image.Image] = []
    ids: list[ImageIds] = []
    for start in range(0, len(prompts), batch_size):
        chunk = slice(start, start + batch_size)
        drawn = model.sample([prompt.text for prompt in prompts[chunk]], seeds[chunk], sampling)
        images.extend(model.decode(drawn))
        ids.append(drawn)
        on_items(len(images), len(prompts))
    return images, np.concatenate(ids)


def understanding(
    model: UnifiedModel,
    domain: Domain,
    count: int,
    seed: int,
    batch_size: int = 256,
    on_items: OnItems = lambda *_: None,
) -> list[bool]:
    """Make a forced choice on each probe: True if the true caption is the more probable one, given the image.

    The two captions differ in one attribute.
    """
    probes = domain.reading_probes(count, seed)
    right: list[bool] = []
    for start in range(0, len(probes), batch_size):
        chunk = probes[start : start + batch_size]
        images = [probe.image for probe in chunk]
        with encoded_once(model):
            true = model.log_likelihood(images, [probe.true_caption for probe in chunk])
            false = model.log_likelihood(images, [probe.false_caption for probe in chunk])
        right.extend(bool(better) for better in true > false)
        on_items(len(right), count)
    return right


def matching(
    model: UnifiedModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    others: Sequence[str],
    batch_size: int = 256,
    on_items: OnItems = lambda *_: None,
) -> list[bool]:
    """Make a forced choice on each image: True if it says more of its own prompt than of another one.

    The prompts may have any length: the compared value is log p(text | image) - log p(text), because a short text is
    probable whatever the image.
    """
    right: list[bool] = []
    for start in range(0, len(images), batch_size):
        chunk = slice(start, start + batch_size)
        with encoded_once(model):
            own, other = (
                model.log_likelihood(images[chunk], texts) - model.log_prior(texts)
                for texts in (prompts[chunk], others[chunk])
            )
        right.extend(bool(better) for better in own > other)
        on_items(len(right), len(images))
    return right


def editing(
    model: UnifiedModel,
    probes: Sequence[EditProbe],
    seeds: Sequence[int],
    sampling: Sampling,
    batch_size: int = 256,
    on_items: OnItems = lambda *_: None,
    on_progress: OnProgress = ignore,
) -> list[bool]:
    """Edit each probe's image; return True for each result that is as the instruction asks, with nothing else changed.

    `on_items` is called after each batch, `on_progress` after each image that was checked.
    """
    passed: list[bool] = []
    for start in range(0, len(probes), batch_size):
        chunk = probes[start : start + batch_size]
        images, instructions = [probe.image for probe in chunk], [probe.instruction for probe in chunk]
        edited = model.decode(model.edit(images, instructions, seeds[start : start + batch_size], sampling))
        for probe, image in zip(chunk, edited, strict=True):
            passed.append(probe.check(image).passed)
            on_progress()
        on_items(len(passed), len(probes))
    return passed


def prompt_diversity(
    model: UnifiedModel, prompts: Sequence[str], seeds_PS: Sequence[Sequence[int]], sampling: Sampling
) -> float:
    """Return the mean over prompts of `image_diversity`, with one image for each seed of a prompt; in [0, 1]."""
    texts = [prompt for prompt, seeds in zip(prompts, seeds_PS, strict=True) for _ in seeds]
    images = model.decode(model.sample(texts, [seed for seeds in seeds_PS for seed in seeds], sampling))
    rest = iter(images)
    return float(np.mean([image_diversity([next(rest) for _ in seeds]) for seeds in seeds_PS]))


def image_diversity(images: Sequence[Image.Image]) -> float:
    """Return the mean absolute difference of pixels over all pairs of images of one prompt, 0 (all alike) to 1.

    Pixels are compared rather than image ids, because a codebook may hold many ids that paint the same patch
    (docs/decisions/0006).
    """
    pixels = [np.asarray(image.convert("RGB"), dtype=np.float64) / 255 for image in images]
    return float(np.mean([np.abs(a - b).mean() for a, b in combinations(pixels, 2)]))
