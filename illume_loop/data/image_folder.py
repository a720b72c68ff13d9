"""The reader of images that rows name by path, below one folder.

Invariants:
- No path leads out of the folder. Paths are untrusted, because they come from downloaded files.
- Links inside the folder are followed. They are trusted, because the folder's owner made them.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from illume_loop.data.fields import BadRow

_DRIVE = re.compile(r"^[A-Za-z]:[\\/]")


class ImageFolder:
    """The folder of a source's images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # A folder that is a link is known by both of its names.
        self._roots = (_parts(str(folder.absolute())), _parts(str(folder.resolve())))

    def read(self, name: str) -> bytes:
        """Return the bytes of an image. Raises BadRow if it is missing or its path leads out of the folder."""
        found = list(dict.fromkeys(self._below(name)))
        for relative in found:
            path = self.folder / relative
            try:
                if path.is_file():
                    return path.read_bytes()
            except (OSError, ValueError) as error:
                raise BadRow("image not found", f"{path}: {error}") from None
        raise BadRow("image not found", f"{self.folder / found[0]}: there is no such file")

    def _below(self, name: str) -> Iterator[str]:
        """Yield the paths below the folder that a name may mean, the likeliest first. Raises BadRow."""
        plain = name.removeprefix("file://")
        for spelled in (plain, unquote(plain)):
            for path in self._relative(spelled, name):
                yield path
                for form in ("NFC", "NFD"):
                    yield unicodedata.normalize(form, path)
                # The name may be relative to the folder's parent: `images/0.jpg` with `--images images`.
                first, _, rest = path.partition("/")
                if rest and first == self.folder.absolute().name:
                    yield rest

    def _relative(self, spelled: str, name: str) -> tuple[str, str]:
        """Return the normalised path below the folder, as written and with Windows' separators. Raises BadRow."""
        parts = _parts(spelled)
        if spelled.startswith("/"):
            root = next((root for root in self._roots if parts[: len(root)] == root), None)
            if root is None:
                raise BadRow("image outside of the folder", name)
            parts = parts[len(root) :]
        # `..` is resolved in the text, not on the disk, where `..` after a link would lead elsewhere.
        plain = os.path.normpath("/".join(parts))
        of_windows = os.path.normpath("/".join(parts).replace("\\", "/"))
        if _DRIVE.match(spelled) or any(_leaves(path) for path in (plain, of_windows)):
            raise BadRow("image outside of the folder", name)
        return plain, of_windows


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _leaves(path: str) -> bool:
    return path.startswith("/") or path.split("/")[0] in ("..", ".")


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in the order of their paths. Links are followed.

    Hidden files are skipped: programs leave some that are not part of the source, as macOS's `._0.jpg` and the hub's
    `.cache`.
    """
    seen: set[str] = set()
    found: list[Path] = []
    for place, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [Path(place, name) for name in files if not name.startswith(".")]
    yield from sorted(path for path in found if path.is_file())
