"""A contact strip of images, such as the parent's draws above the candidate's."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

GAP = 2


def strip(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Join rows of equally many images to one image, with gaps between them. Raises ValueError without images."""
    width, height = (max(image.size[side] for row in rows for image in row) for side in (0, 1))
    size = (len(rows[0]) * (width + GAP) - GAP, len(rows) * (height + GAP) - GAP)
    whole = Image.new("RGB", size, "#808080")
    for top, row in enumerate(rows):
        for left, image in enumerate(row):
            whole.paste(image, (left * (width + GAP), top * (height + GAP)))
    return whole
