"""The way from prompts to stored images: while one batch is drawn, the batch before is decoded and stored.

Decoding, PNG encoding, hashing and writing to disk run behind the drawing, on another thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from illume_loop.protocols import ImageIds, Sampling, UnifiedModel


@runtime_checkable
class DrawsInBatches(Protocol):
    """A `UnifiedModel` that divides its drawing into batches by itself."""

    def draw_batches(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> Iterator[tuple[list[int], ImageIds]]:
        """Draw as `UnifiedModel.sample` does; yield each batch when it is drawn: its rows, and their ids (b, L)."""
        ...


def draw_images(
    model: UnifiedModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    keep: Callable[[Sequence[Image.Image]], list[str]],
    on_drawn: Callable[[int], object] = lambda _: None,
) -> tuple[ImageIds, list[Image.Image], list[str]]:
    """Draw and keep images; return ids (B, L), images and the names from `keep`, in the order of the prompts.

    `keep` is called on the other thread with the images of a batch; all images are kept on return. `on_drawn` is called
    on this thread with the number of rows drawn so far.
    """

    def finish(ids_BL: ImageIds) -> tuple[list[Image.Image], list[str]]:
        images = model.decode(ids_BL)
        return images, keep(images)

    if not isinstance(model, DrawsInBatches):
        ids_BL = model.sample(prompts, seeds, sampling)
        on_drawn(len(ids_BL))
        return ids_BL, *finish(ids_BL)
    ids_of: dict[int, ImageIds] = {}
    behind: list[tuple[list[int], Future[tuple[list[Image.Image], list[str]]]]] = []
    with ThreadPoolExecutor(1, "drawing") as thread:
        for rows, ids_BL in model.draw_batches(prompts, seeds, sampling):
            ids_of.update(zip(rows, ids_BL, strict=True))
            behind.append((rows, thread.submit(finish, ids_BL)))
            on_drawn(len(ids_of))
    image_of: dict[int, Image.Image] = {}
    name_of: dict[int, str] = {}
    for rows, finished in behind:
        images, names = finished.result()
        image_of.update(zip(rows, images, strict=True))
        name_of.update(zip(rows, names, strict=True))
    order = range(len(prompts))
    return np.stack([ids_of[i] for i in order]), [image_of[i] for i in order], [name_of[i] for i in order]
