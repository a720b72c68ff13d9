"""Images by the sha256 of their PNG.

Invariants:
- Writing an image twice is the same as writing it once.
- Every read verifies the image.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from illume_loop.errors import CorruptArtifactError
from illume_loop.files import Root
from illume_loop.hooks import OnProgress, ignore

WRITERS = 8
"""Threads that write a batch. Each fsync waits for the disk, and the waits of several threads overlap."""


class ImageStore:
    """A store of PNG files at images/<first two digits>/<sha256>.png below a root."""

    def __init__(self, root: Root, on_progress: OnProgress = ignore) -> None:
        """Open the store. `on_progress` is called after each image that is read or written, in the same thread."""
        self._root, self._on_progress = root, on_progress

    def write_all(self, images: Sequence[Image.Image]) -> list[str]:
        """Store images; return their sha256, in order. Raises StorageFullError."""
        with ThreadPoolExecutor(WRITERS) as pool:
            return list(pool.map(self._write, images))

    def read(self, sha256: str) -> Image.Image:
        """Return an image of the store in RGB. Raises CorruptArtifactError if it is missing or damaged."""
        return Image.open(io.BytesIO(self.read_bytes(sha256))).convert("RGB")

    def read_bytes(self, sha256: str) -> bytes:
        """Return the bytes of an image's PNG. Raises CorruptArtifactError if it is missing or damaged."""
        data = self._root.read(_path(sha256))
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise CorruptArtifactError(path=self._root.full(_path(sha256)), expected=sha256, found=found)
        self._on_progress()
        return data

    def location(self, sha256: str) -> str:
        """Return the location of an image's PNG: a path, or a name in the store's own file system."""
        return self._root.full(_path(sha256))

    def _write(self, image: Image.Image) -> str:
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        data = buffer.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        if not self._root.exists(_path(sha256)):
            self._root.write(_path(sha256), data)
        self._on_progress()
        return sha256


def _path(sha256: str) -> str:
    return f"images/{sha256[:2]}/{sha256}.png"
