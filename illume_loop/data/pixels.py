"""From the bytes of an image to the square that a tokenizer takes.

Guarantee: only JPEG, PNG and WebP are decoded, and no image of more than MAX_PIXELS; nothing is said by warnings.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageOps, UnidentifiedImageError

from illume_loop.data.rows import BadRow

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
"""A camera's largest, and far below what a small file can be blown up to."""
MAX_CROP = 0.2
"""Of an image; the successor of the paper (arXiv 2504.01934) drops what its resolutions would crop by more."""
GROUND = (255, 255, 255)
"""Behind transparent pixels, and beside images that are padded."""


@dataclass(frozen=True, slots=True)
class Fit:
    """How an image becomes square: its centre is cut out, or it is padded on both sides.

    `max_crop` is the largest share of an image that may be cut away.
    """

    how: Literal["crop", "pad"] = "crop"
    max_crop: float = MAX_CROP

    def cuts(self, width: int, height: int) -> float:
        """The share of an image of this size that is cut away."""
        return 1.0 - min(width, height) / max(width, height) if self.how == "crop" else 0.0

    def accepts(self, width: int, height: int) -> bool:
        """Whether an image of this size may be made square."""
        return self.cuts(width, height) <= self.max_crop

    def square(self, image: Image.Image, side: int) -> Image.Image:
        """The image as `side` x `side` pixels."""
        if self.how == "pad":
            return ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, color=GROUND)
        return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)


CENTRE = Fit()


def open_image(data: bytes) -> Image.Image:
    """An image in RGB, upright, on white where it is transparent. Raises BadRow."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            file = Image.open(io.BytesIO(data), formats=FORMATS)
        with file:
            if file.width * file.height > MAX_PIXELS:
                raise BadRow("too many pixels", f"{file.width} x {file.height}")
            return _plain(ImageOps.exif_transpose(file))
    except UnidentifiedImageError:
        raise BadRow("unreadable image", f"it is none of {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRow("too many pixels", str(error)) from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadRow("unreadable image", str(error)) from None


def _plain(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*GROUND, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
