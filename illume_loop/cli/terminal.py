# ruff: noqa: RUF001 - the characters that others are shown by
"""Standard output and standard error that fit any terminal, pipe or file.

Invariants:
- Printing raises no encoding error: a character that the encoding lacks is shown by a plain one, or escaped.
- Standard error ends no command: what cannot be written there is dropped.
- A reader of standard output that has gone (`| head -1`) ends the command quietly, with 0.
- A stream that was closed before the start is /dev/null, so no file that is opened later takes its number.
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
"""Characters of our own texts and of rich's, and what stands for each where the encoding lacks it."""
PLAIN_ERRORS = "illume-plain"
_NO_MOVES = ("", "dumb", "unknown")
_OUT, _ERR = 1, 2


class ReaderGone(SystemExit):
    """Whoever read standard output has closed it, so there is nobody left to tell; the command ends with 0."""

    def __init__(self) -> None:
        super().__init__(0)


def ready() -> None:
    """Make this process's standard streams keep the invariants above. Call it once, before anything is printed."""
    _open_closed()
    for name in ("COLUMNS", "LINES"):
        if not re.fullmatch(r"0*[1-9]\d{0,4}", os.environ.get(name, "")):
            os.environ.pop(name, None)  # a terminal of no columns shows nothing
    codecs.register_error(PLAIN_ERRORS, _plain)
    sys.stdout = _fitted(sys.stdout, _OUT, _raise_once())
    sys.stderr = _fitted(sys.stderr, _ERR, lambda _: None)


def moves(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which text can be drawn over (TERM=dumb cannot)."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in _NO_MOVES


def is_utf8(stream: TextIO) -> bool:
    """Return whether a stream holds UTF-8, and so any text as it is."""
    try:
        return codecs.lookup(stream.encoding or "utf-8").name == "utf-8"
    except LookupError:
        return False


class _Descriptor(io.RawIOBase):
    """Writes to a file descriptor; `failed` decides what an error means, and may raise another one."""

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
            except BlockingIOError:  # another program made it so
                select.select([], [self._number], [])
            except OSError as error:
                self._failed(error)
                break
        return size


def _raise_once() -> Callable[[OSError], None]:
    """Return what raises for the first error alone: the interpreter writes what is buffered once more as it ends."""
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
        # An unbuffered stream (python -u) stays one, line by line.
        by_line = getattr(stream, "line_buffering", True) or getattr(stream, "write_through", False)
    buffer = io.BufferedWriter(_Descriptor(number, failed))
    return io.TextIOWrapper(buffer, encoding, PLAIN_ERRORS, line_buffering=by_line)


def _open_closed() -> None:
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is given, and that is this one.
            os.open(os.devnull, os.O_RDWR)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    escaped = (PLAIN.get(one) or one.encode("ascii", "backslashreplace").decode() for one in lacking)
    return "".join(escaped), error.end
