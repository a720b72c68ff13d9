"""Images in the terminal: drawn where it can (Sixel, or kitty's protocol), otherwise told by their path.

A terminal is asked what it can only when both of its sides are ours: a pipe or a file gets paths.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from illume_loop.cli.terminal import moves

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import Console

ROWS = 12
"""Lines of text that an image is high."""


def can_show() -> bool:
    """Whether the terminal shows images; it is asked once."""
    return _renderable() is not None


def print_picture(console: Console, image: Image, path: str) -> None:
    """Show an image, or print its path where the terminal cannot."""
    renderable = _renderable()
    if renderable is None:
        console.print(path, soft_wrap=True, markup=False, emoji=False, highlight=False)
        return
    from PIL.Image import Resampling

    # Small images are to be seen with their pixels, not blurred.
    factor = max(1, 192 // max(image.size))
    larger = image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
    console.print(renderable(larger, height=ROWS, width="auto"))


def _renderable() -> Any:
    if not (sys.stdin.isatty() and moves(sys.stdout)):
        return None
    logging.getLogger("textual_image").setLevel(logging.ERROR)
    # Importing it asks the terminal.
    from textual_image.renderable import Image, SixelImage, TGPImage

    return Image if Image in (SixelImage, TGPImage) else None
