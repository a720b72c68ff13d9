"""Image files that people give to commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: Path) -> Image:
    """The file as an RGB image, fully decoded. Raises UnreadableImageError."""
    from PIL import Image, UnidentifiedImageError

    from illume_loop.errors import UnreadableImageError

    try:
        with Image.open(path) as file:
            return file.convert("RGB")
    except FileNotFoundError:
        raise UnreadableImageError(path=path, reason="it does not exist") from None
    except UnidentifiedImageError:
        raise UnreadableImageError(path=path, reason="its format is not known") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(path=path, reason=getattr(error, "strerror", None) or str(error)) from None
