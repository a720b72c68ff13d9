"""Thumbnails for galleries: made once, and cached in memory by the image's hash, up to a limit.

Browsers cache them for a year, because the image of a hash never changes.
"""

from __future__ import annotations

import io
import threading
from collections import OrderedDict

from PIL import Image

from illume_loop.artifacts.images import ImageStore

SIDE = 256
"""The pixels of the longer side; smaller images stay as they are."""
MOST_BYTES = 64 << 20


class Thumbnails:
    """A cache of thumbnails: PNG bytes by sha256 of the image."""

    def __init__(self, images: ImageStore, most_bytes: int = MOST_BYTES) -> None:
        self._images, self._most_bytes = images, most_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._num_bytes = 0
        self._lock = threading.Lock()

    def get(self, sha256: str) -> bytes:
        """Return the thumbnail of an image. Raises CorruptArtifactError if the image is missing or damaged."""
        with self._lock:
            if sha256 in self._kept:
                self._kept.move_to_end(sha256)
                return self._kept[sha256]
        small = _small(self._images.read_bytes(sha256))
        with self._lock:
            if sha256 not in self._kept:
                self._kept[sha256] = small
                self._num_bytes += len(small)
            while self._num_bytes > self._most_bytes:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])
        return small


def _small(png: bytes) -> bytes:
    with Image.open(io.BytesIO(png)) as image:
        if max(image.size) <= SIDE:
            return png
        small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    small.save(buffer, format="PNG")
    return buffer.getvalue()
