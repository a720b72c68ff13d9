"""A strip of images: what a parent drew above what its candidate drew, for the same prompts and seeds."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

GAP = 2


def strip(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Rows of equally many images as one, with gaps between them. Raises ValueError for no image."""
    width, height = (max(image.size[side] for row in rows for image in row) for side in (0, 1))
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    whole = Image.new("RGB", size, "#808080")
    for top, row in enumerate(rows):
        for left, image in enumerate(row):
            whole.paste(image, (left * (width + GAP), top * (height + GAP)))
    return whole
