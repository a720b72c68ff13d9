# ruff: noqa: RUF001 - PLAIN maps ambiguous characters to plain ones
"""Standard output and standard error that work on any terminal, pipe or file.

Invariants:
- Printing raises no encoding error: a character that the encoding lacks is replaced by a plain one, or escaped.
- An error on standard error never ends a command; the text is dropped.
- If the reader of standard output closes it (`| head -1`), the command ends quietly with exit code 0.
- A stream that was closed before the start becomes /dev/null, so that no file opened later gets its number.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import select
import sys
from collections.abc import Callable
from typing import TextIO

PLAIN = {
    "→": "->",
    "←": "<-",
    "…": "...",
    "–": "-",
    "—": "-",
    "−": "-",
    "·": "-",
    "•": "*",
    "±": "+-",
    "×": "x",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "✓": "v",
    "✗": "x",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "\u00a0": " ",
    "─": "-",
    "━": "-",
    "│": "|",
    "╸": "-",
    "╺": "-",
}
"""The characters of this package's and rich's texts, and their replacements for encodings that lack them."""
PLAIN_ERRORS = "illume-plain"
_NO_MOVES = ("", "dumb", "unknown")
_OUT, _ERR = 1, 2


class ReaderGone(SystemExit):
    """The reader closed standard output; the command ends with 0, because no output can reach anyone."""

    def __init__(self) -> None:
        super().__init__(0)


def ready() -> None:
    """Replace this process's standard streams by ones that keep the invariants. Call it once, before any output."""
    _open_closed()
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch(r"0*[1-9]\d{0,4}", os.environ.get(name, "")):
            os.environ.pop(name, None)  # with 0 columns, rich shows nothing
    codecs.register_error(PLAIN_ERRORS, _plain)
    sys.stdout = _fitted(sys.stdout, _OUT, _raise_once())
    sys.stderr = _fitted(sys.stderr, _ERR, lambda _: None)


def moves(stream: TextIO) -> bool:
    """Return True if a stream is a terminal whose text can be overwritten (with TERM=dumb it cannot)."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in _NO_MOVES


def is_utf8(stream: TextIO) -> bool:
    """Return True if a stream's encoding is UTF-8."""
    try:
        return codecs.lookup(stream.encoding or "utf-8").name == "utf-8"
    except LookupError:
        return False


class _Descriptor(io.RawIOBase):
    """A raw stream over a file descriptor; `failed` handles a write error, and may raise another one."""

    def __init__(self, number: int, failed: Callable[[OSError], None]) -> None:
        self._number, self._failed = number, failed

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def write(self, data: object) -> int:
        left = memoryview(data).cast("B")  # type: ignore[arg-type]
        size = len(left)
        while left:
            try:
                left = left[os.write(self._number, left) :]
            except BlockingIOError:  # another program set the descriptor to non-blocking
                select.select([], [self._number], [])
            except OSError as error:
                self._failed(error)
                break
        return size


def _raise_once() -> Callable[[OSError], None]:
    """Return a handler that raises for the first error only, because the interpreter flushes once more as it ends."""
    raised: list[OSError] = []

    def failed(error: OSError) -> None:
        if raised:
            return
        raised.append(error)
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from None
        raise OSError(error.errno, error.strerror, "standard output") from None

    return failed


def _fitted(stream: TextIO | None, number: int, failed: Callable[[OSError], None]) -> TextIO:
    encoding, by_line = "utf-8", True
    if stream is not None:
        stream.flush()
        encoding = stream.encoding or encoding
        # An unbuffered stream (python -u) becomes line-buffered.
        by_line = getattr(stream, "line_buffering", True) or getattr(stream, "write_through", False)
    buffer = io.BufferedWriter(_Descriptor(number, failed))
    return io.TextIOWrapper(buffer, encoding, PLAIN_ERRORS, line_buffering=by_line)


def _open_closed() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The system gives the lowest free number, which is the number of the closed stream.
            os.open(os.devnull, os.O_RDWR)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in lacking)
    return "".join(escaped), error.end
