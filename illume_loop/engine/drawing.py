"""From prompts to images that are kept: while one batch is drawn, the one before is decoded and written elsewhere.

Decoding, PNG encoding, hashing and the disk all stand behind the drawing, on another thread.
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
    """A `UnifiedModel` that cuts what it is asked for into batches by itself."""

    def draw_batches(
        self, prompts: Sequence[str], seeds: Sequence[int], sampling: Sampling
    ) -> Iterator[tuple[list[int], ImageIds]]:
        """`UnifiedModel.sample` batch by batch, as each is drawn: which rows, and their ids (b, L)."""
        ...


def draw_images(
    model: UnifiedModel,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    keep: Callable[[Sequence[Image.Image]], list[str]],
    on_drawn: Callable[[int], object] = lambda _: None,
) -> tuple[ImageIds, list[Image.Image], list[str]]:
    """Ids (B, L), images, and the names that `keep` gave them, in the order of the prompts.

    `keep` is called with the images of a batch, on the other thread; all have been kept on return. `on_drawn` is called
    with the number of rows that are drawn, on this one.
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
