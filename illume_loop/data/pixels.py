"""The reader of users' images, and the square image that a tokenizer takes.

Invariants:
- Only JPEG, PNG and WebP are decoded from data sources. No image of more than MAX_PIXELS is decoded from any file.
- Any fault of an image becomes a BadRow, so it costs one row. No warning reaches the terminal.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from illume_loop.data.fields import BadRow

FORMATS = ("JPEG", "PNG", "WEBP")
MAX_PIXELS = 50_000_000
"""The size of the largest camera images. A small malicious file can decode to far more."""
MAX_CROP = 0.2
"""A share of the image. The paper's successor (arXiv 2504.01934) drops images that it would crop by more."""
GROUND = (255, 255, 255)
"""The colour behind transparent pixels and around padded images."""
_ORIENTATION = ExifTags.Base.Orientation
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transpose that turns each EXIF orientation upright."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The way an image becomes square: its centre is cut out ("crop"), or both sides are padded ("pad").

    `max_crop` is the largest share of an image that may be cut away.
    """

    how: Literal["crop", "pad"] = "crop"
    max_crop: float = MAX_CROP

    def cuts(self, width: int, height: int) -> float:
        """Return the share of an image of this size that is cut away."""
        return 1.0 - min(width, height) / max(width, height) if self.how == "crop" else 0.0

    def accepts(self, width: int, height: int) -> bool:
        """Return True if an image of this size may be made square."""
        return self.cuts(width, height) <= self.max_crop

    def square(self, image: Image.Image, side: int) -> Image.Image:
        """Return the image as `side` x `side` pixels."""
        if self.how == "pad":
            return ImageOps.pad(image, (side, side), Image.Resampling.BICUBIC, color=GROUND)
        return ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)


CENTRE = Fit()


def open_image(data: bytes, formats: tuple[str, ...] | None = FORMATS) -> Image.Image:
    """Return the first frame of an image in RGB, upright, with transparent pixels on white.

    All images of users are read here. `formats` are the formats that are decoded; None means all that Pillow knows.
    Raises BadRow for any fault of the image.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata, which does not matter if the image itself can be read.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise BadRow("too many pixels", f"{file.width} x {file.height}")
                # Reading the metadata of a PNG loads its pixels too, and _turn_of ignores errors. So load them first.
                file.load()
                turn, plain = _turn_of(file), _plain(file)
                return plain.transpose(turn) if turn is not None else plain
    except BadRow:
        raise
    except UnidentifiedImageError:
        raise BadRow("unreadable image", _unknown_format(data, formats)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRow("too many pixels", str(error)) from None
    except Exception as error:
        # Decoders raise many errors on damaged bytes: struct.error, ZeroDivisionError, IndexError, zlib.error.
        raise BadRow("unreadable image", str(error) or type(error).__name__) from None


def _unknown_format(data: bytes, formats: tuple[str, ...] | None) -> str:
    if not data:
        return "it is empty"
    return "its format is not known" if formats is None else f"it is none of {', '.join(formats)}"


def _turn_of(file: Image.Image) -> Image.Transpose | None:
    """Return the transpose that turns an image upright; None if it needs none or its metadata is damaged.

    Pillow's exif_transpose is not used: it also rewrites the metadata and fails if it cannot.
    """
    try:
        orientation = file.getexif().get(_ORIENTATION)
        return _TURNS.get(orientation) if isinstance(orientation, int) else None
    except Exception:
        return None  # the image may be whole although its metadata is damaged


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*GROUND, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image with 16-bit, 32-bit or float grey values in 8 bits.

    Pillow's own conversion would turn every value above 255 white.
    """
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    most = 65535.0 if image.mode.startswith("I") else max(float(values.max(initial=0.0)), 1.0)
    return Image.fromarray(np.clip(values * (255.0 / most), 0, 255).astype(np.uint8))
