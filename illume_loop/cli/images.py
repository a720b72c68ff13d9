"""Images on the command line: read them from files, and show them if the terminal can."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from illume_loop.cli.terminal import moves

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console


def read_image(path: Path) -> Image:
    """Return the image of a file as RGB, upright, on white, as `data` reads it. Raises UnreadableImageError."""
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


ROWS = 12
"""The height of an image in lines of text."""


def terminal_shows_images() -> bool:
    """Return True if the terminal shows images."""
    return _renderable() is not None


def print_picture(console: Console, image: Image, path: str) -> None:
    """Show an image, or print its path if the terminal shows no images."""
    renderable = _renderable()
    if renderable is None:
        console.print(path, soft_wrap=True, markup=False, emoji=False, highlight=False)
        return
    from PIL.Image import Resampling

    # Enlarge small images by whole pixels, so that they are not blurred.
    factor = max(1, 192 // max(image.size))
    larger = image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
    console.print(renderable(larger, height=ROWS, width="auto"))


def _renderable() -> Any:
    if not (sys.stdin.isatty() and moves(sys.stdout)):
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    # The import asks the terminal what it can show.
    from textual_image.renderable import Image, SixelImage, TGPImage

    return Image if Image in (SixelImage, TGPImage) else None
