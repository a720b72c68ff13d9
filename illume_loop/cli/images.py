"""Image files that people give to commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def read_image(path: Path) -> Image:
    """Return the image of a file as `data` reads it: RGB, upright, on white. Raises UnreadableImageError."""
    from illume_loop.data.fields import BadRow
    from illume_loop.data.pixels import open_image
    from illume_loop.errors import UnreadableImageError

    try:
        return open_image(path.read_bytes(), formats=None)
    except BadRow as problem:
        reason = problem.detail if problem.reason == "unreadable image" else f"{problem.reason}, {problem.detail}"
        raise UnreadableImageError(path=path, reason=reason) from None
    except FileNotFoundError:
        raise UnreadableImageError(path=path, reason="it does not exist") from None
    except (OSError, ValueError) as error:
        raise UnreadableImageError(path=path, reason=getattr(error, "strerror", None) or str(error)) from None
