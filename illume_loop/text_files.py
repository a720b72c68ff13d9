"""The text of files that people bring, in the encodings that editors and spreadsheets write."""

from __future__ import annotations

import codecs

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # The mark of UTF-16 little-endian begins the one of UTF-32, so UTF-32 is asked first.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SURROGATES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def encoding_of(start: bytes) -> str:
    """Return the encoding of a text by its first bytes: its byte order mark, the zero bytes of UTF-16, else UTF-8."""
    for mark, encoding in _MARKS:
        if start.startswith(mark):
            return encoding
    if len(start) >= 2 and start[0] and not start[1]:
        return "utf-16-le"
    if len(start) >= 2 and start[1] and not start[0]:
        return "utf-16-be"
    return "utf-8"


def decoded(data: bytes) -> str:
    """Return a text without its byte order mark. Raises UnicodeDecodeError."""
    return data.decode(encoding_of(data[:4])).removeprefix("\ufeff")


def storable(text: str) -> str:
    """Return the text with lone surrogates replaced, which neither UTF-8 nor a database can hold."""
    return text if text.isascii() else text.translate(_SURROGATES)
