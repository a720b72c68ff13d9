"""The meaning of a row's fields: which one is the image, the caption or the dialogue.

The image is the first of these that the row has: an embedded image under a known name, a path under a known name, the
only embedded image under another name.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NoReturn

from illume_loop.files import decoded, storable

Fields = Mapping[str, Any]
ReadImage = Callable[[str], bytes]
"""Returns the bytes of the image that a row names by path. Raises BadRow."""

PICTURES = ("jpg", "jpeg", "png", "webp")
ALSO_CALLED: Mapping[str, tuple[str, ...]] = {
    "image": ("image", "jpg", "jpeg", "png", "webp", "img", "image_bytes", "img_bytes"),
    "caption": ("caption", "text", "txt", "prompt", "alt_text", "re_caption", "captions"),
    "source": ("source", "source_image", "source_img", "input_image", "original_image"),
    "target": ("target", "target_image", "target_img", "output_image", "edited_image"),
    "instruction": ("instruction", "edit_instruction", "edit_prompt", "edit"),
    "answer": ("answer", "output", "response"),
    "turns": ("conversations", "messages", "conversation"),
    "images": ("images",),
}
"""The names that sources use for each field, in any case of letters. The first one with a value counts."""
_NAMES_OF_FILES = ("file_name", "image_path", "img_path", "image_file", "image_name", "filename", "filepath", "path")
_NAMES_OF_URLS = ("image_url", "img_url", "url")
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"GIF8", b"II*\0", b"MM\0*", b"BM")
_BASE64 = ("/9j/", "iVBORw0KGgo", "UklGR")
"""The first characters of JPEG, PNG and WebP in base64."""
LONGEST_TEXT = 1_000_000
"""The bound on a text, in characters. A tokenizer would spend minutes on a longer one."""


class BadRow(Exception):  # noqa: N818 - it is reported and ends nothing
    """A row that cannot be used. Rows are counted by `reason`; `detail` describes this row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def no_files(name: str) -> NoReturn:
    """Raise BadRow, because an image is named by path and there is no folder to read it from."""
    raise BadRow("no image", f"it is named by path only: {name}")


class RowFields:
    """A row's fields by their meaning. `names` maps a meaning to the source's own name and overrides ALSO_CALLED."""

    def __init__(self, fields: Fields, names: Mapping[str, str], read: ReadImage = no_files) -> None:
        self._fields, self._names, self._read = fields, names, read
        self._lower = {name.lower(): value for name, value in reversed(list(fields.items()))}

    def value(self, wanted: str) -> Any:
        """Return the first value under a field's names that is not empty; None if all are missing. Raises BadRow."""
        found = [value for _, value in self._called(wanted) if value is not None]
        value = next((value for value in found if not _is_empty(value)), found[0] if found else None)
        if isinstance(value, BadRow):
            raise value
        return value

    def text(self, wanted: str, reason: str) -> str:
        """Return a field's text, or the first text of a list. Raises BadRow with `reason` if there is none."""
        return text_of(self.value(wanted), reason)

    def has(self, wanted: str) -> bool:
        """Return True if the row has the field, even an empty one."""
        return any(True for _ in self._called(wanted))

    def picture(self, wanted: str) -> bytes | None:
        """Return the image under one of a field's names; None if no name holds one. Raises BadRow."""
        found = [value for _, value in self._called(wanted) if _is_picture(value) or wanted in self._names]
        chosen = next((value for value in found if _is_embedded(value)), found[0] if found else None)
        return None if chosen is None else self.image(chosen)

    def images(self) -> list[bytes]:
        """Return the images of the row, in their order. Raises BadRow."""
        wanted = [field for field in ("images", "image") if field in self._names] or ["images", "image"]
        known = [value for field in wanted for _, value in self._called(field)]
        filled = [value for value in known if not _is_empty(value)]
        named = filled or list(self._paths())
        chosen = next((value for value in filled if _is_embedded(value)), named[0] if named else None)
        if chosen is None:
            # An empty image field means that the row has no image, even if another field holds one.
            return [] if known else self._other()
        try:
            return [self.image(one) for one in _listed(chosen)]
        except BadRow:
            if not isinstance(chosen, str) or "image" in self._names or not (other := self._other()):
                raise
            return other

    def image(self, value: object) -> bytes:
        """Return the bytes of an image. Raises BadRow.

        `value` is the bytes, a mapping of `bytes` and `path` as `datasets` keeps them, a base64 text, or a path.
        """
        if isinstance(value, BadRow):
            raise value
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes | bytearray | memoryview) and len(value):
            return bytes(value)
        if not isinstance(value, str) or not value.strip():
            raise BadRow("no image", "" if _is_empty(value) else f"it is a {type(value).__name__}, not a file's bytes")
        if _is_base64(value):
            try:
                return base64.b64decode(value.partition(",")[2] if value.startswith("data:") else value)
            except binascii.Error as error:
                raise BadRow("unreadable image", str(error)) from None
        if value.startswith(("http://", "https://")):
            raise BadRow("image is a URL", f"{value}; download the images first, for example with img2dataset")
        return self._read(value.strip())

    def _called(self, wanted: str) -> Iterator[tuple[str, Any]]:
        if wanted in self._names:
            name = self._names[wanted]
            if name in self._fields:
                yield name, self._fields[name]
            return
        for name in ALSO_CALLED[wanted]:
            if name in self._fields:
                yield name, self._fields[name]
            elif name in self._lower:
                yield name, self._lower[name]

    def _paths(self) -> Iterator[str]:
        """Yield the image paths and URLs in fields whose names may also mean files that are not images."""
        if "image" not in self._names:
            values = (self._lower.get(name) for name in (*_NAMES_OF_FILES, *_NAMES_OF_URLS))
            yield from (value for value in values if isinstance(value, str) and _names_a_picture(value))

    def _other(self) -> list[bytes]:
        """Return the images of the only field with embedded images, whatever its name; empty if there is none.

        Raises BadRow if several fields have embedded images.
        """
        if "image" in self._names or "images" in self._names:
            return []
        found = {name: value for name, value in self._fields.items() if _is_embedded(value, by_content=True)}
        if len(found) > 1:
            names = ", ".join(found)
            raise BadRow("unknown layout", f"it has several images ({names}); name one with --field image=NAME")
        return [self.image(one) for value in found.values() for one in _listed(value)]


def text_of(value: object, reason: str) -> str:
    """Return a value, or the first text of a list, as text that can be stored. Raises BadRow.

    `reason` is the error's reason if there is no text.
    """
    if isinstance(value, list | tuple):
        value = next((one for one in value if isinstance(one, str) and one.strip()), None)
    if isinstance(value, bytes):
        try:
            value = decoded(value)
        except UnicodeDecodeError as error:
            raise BadRow("not UTF-8", str(error)) from None
    if not isinstance(value, str):
        raise BadRow(reason, "" if value is None else f"it is a {type(value).__name__}, not a text")
    if len(value) > LONGEST_TEXT:
        raise BadRow("too long", f"{len(value)} characters, and the bound is {LONGEST_TEXT}")
    if not value.strip():
        raise BadRow(reason)
    return storable(value.strip())


def _listed(value: object) -> list[object]:
    """Return the images of a field as one flat list."""
    if not isinstance(value, list | tuple):
        return [value]
    return [one for inner in value for one in _listed(inner)] if value else []


def _is_empty(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | tuple) and not value)


def _is_embedded(value: object, *, by_content: bool = False) -> bool:
    """Return True if a value holds a file, as bytes or in base64.

    With `by_content`, bytes must also begin like an image.
    """
    if isinstance(value, list | tuple):
        return bool(value) and _is_embedded(value[0], by_content=by_content)
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, str):
        return _is_base64(value)
    return isinstance(value, bytes | bytearray) and bool(value) and (not by_content or value.startswith(_MAGIC))


def _is_picture(value: object) -> bool:
    """Return True if a value holds an image or names an image file. A text such as `laion` does neither."""
    if isinstance(value, str):
        return _is_base64(value) or _names_a_picture(value)
    if isinstance(value, Mapping):
        return "bytes" in value or "path" in value
    return _is_embedded(value) or isinstance(value, BadRow)


def _is_base64(value: str) -> bool:
    return value.startswith("data:image/") or (len(value) > 64 and value.startswith(_BASE64))


def _names_a_picture(value: str) -> bool:
    path = value.partition("?")[0] if value.startswith(("http://", "https://")) else value
    return PurePosixPath(path.strip()).suffix.lower().lstrip(".") in PICTURES
