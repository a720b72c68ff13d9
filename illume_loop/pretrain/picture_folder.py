"""Batches of pixels from a folder of pictures. A batch depends only on the seed, the purpose and the step."""

from __future__ import annotations

from pathlib import Path
from random import Random

from PIL import Image
from torch import Tensor

from illume_loop.data.fields import BadRow
from illume_loop.data.image_folder import files_below
from illume_loop.data.pixels import CENTRE, FORMATS, open_image
from illume_loop.errors import DataSourceError
from illume_loop.pretrain.scenes import to_pixels

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
GIVEN_UP_AFTER = 20
"""The number of unreadable pictures in a row that ends the work."""


class PictureFolder:
    """The pictures below a folder, in batches of `size` squares of `side` pixels."""

    def __init__(self, folder: Path, size: int, side: int, seed: int) -> None:
        """List the pictures. Raises DataSourceError if there are none."""
        self.files = [path for path in files_below(folder) if path.suffix.lower() in ENDINGS]
        if not self.files:
            raise DataSourceError(path=folder, reason=f"it holds no pictures ({', '.join(FORMATS)})")
        self.folder, self.size, self.side, self.seed = folder, size, side, seed

    def at(self, step: int, purpose: str = "") -> Tensor:
        """Return the largest centred squares of random pictures, (size, 3, side, side) in [0, 1].

        A picture that cannot be read is replaced by another one. Raises DataSourceError if GIVEN_UP_AFTER pictures in
        a row cannot be read.
        """
        rng = Random(f"{purpose}/{self.seed}/{step}")
        squares: list[Image.Image] = []
        bad = 0
        while len(squares) < self.size:
            file = rng.choice(self.files)
            try:
                squares.append(CENTRE.square(open_image(file.read_bytes()), self.side))
                bad = 0
            except (BadRow, OSError) as error:
                bad += 1
                if bad == GIVEN_UP_AFTER:
                    reason = f"{bad} pictures one after the other cannot be read, such as {file.name} ({error})"
                    raise DataSourceError(path=self.folder, reason=reason) from error
        return to_pixels(squares)
