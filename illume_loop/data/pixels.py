"""The reader of images that people bring, and the square of an image that a tokenizer takes.

Invariants:
- From sources of data only JPEG, PNG and WebP are decoded, and from no file an image of more than MAX_PIXELS.
- Whatever is wrong with an image becomes a BadRow, so it costs one row; no warning reaches the terminal.
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
"""A camera's largest, and far below what a small file can be blown up to."""
MAX_CROP = 0.2
"""Of an image; the successor of the paper (arXiv 2504.01934) drops what its resolutions would crop by more."""
GROUND = (255, 255, 255)
"""Behind transparent pixels, and beside images that are padded."""
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
"""EXIF's orientations, and what makes each upright."""


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


def open_image(data: bytes, formats: tuple[str, ...] | None = FORMATS) -> Image.Image:
    """Return an image as people see it: RGB, upright, its first frame, on white where it is transparent.

    This is the one reader of images that people bring. `formats` are the formats that are decoded, None for all that
    Pillow knows. Raises BadRow, whatever is wrong with the image.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata; only an image that cannot be shown is worth a word.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=formats) as file:
                if file.width * file.height > MAX_PIXELS:
                    raise BadRow("too many pixels", f"{file.width} x {file.height}")
                # Before its metadata is asked for: that loads a PNG too, and an error must not be taken for theirs.
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
        # Decoders of strangers' bytes raise what they like: struct.error, ZeroDivisionError, IndexError, zlib.error.
        raise BadRow("unreadable image", str(error) or type(error).__name__) from None


def _unknown_format(data: bytes, formats: tuple[str, ...] | None) -> str:
    if not data:
        return "it is empty"
    return "its format is not known" if formats is None else f"it is none of {', '.join(formats)}"


def _turn_of(file: Image.Image) -> Image.Transpose | None:
    """Return how an image must be turned to be upright.

    Pillow's own exif_transpose also writes the metadata anew, which fails for what it cannot write.
    """
    try:
        orientation = file.getexif().get(_ORIENTATION)
        return _TURNS.get(orientation) if isinstance(orientation, int) else None
    except Exception:
        return None  # damaged metadata says nothing about the picture


def _plain(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _eight_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, (*GROUND, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return an image of wider grey values in 8 bits; Pillow's conversion turns all that is above 255 white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    most = 65535.0 if image.mode.startswith("I") else max(float(values.max(initial=0.0)), 1.0)
    return Image.fromarray(np.clip(values * (255.0 / most), 0, 255).astype(np.uint8))
