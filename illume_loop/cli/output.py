"""The output of commands: results on stdout (a table, or JSON), hints for the next command on stderr.

Invariants:
- Names, prompts and paths are printed literally: rich interprets no markup or emoji codes in them.
- A control character is printed as its escape, so that no text moves the cursor or colours the terminal.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from illume_loop.cli.terminal import is_utf8

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 200
"""The columns if stdout is not a terminal: wide enough that no table cell is cut."""


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""All control characters except tab and line feed, and the characters that change the text direction."""


def console(*, stderr: bool = False) -> Console:
    """Return a rich console that prints texts literally, and does not cut tables in a pipe."""
    from rich.console import Console

    width = None if stderr or sys.stdout.isatty() else PIPED_WIDTH
    return Console(stderr=stderr, width=width, highlight=False, markup=False, emoji=False)


def visible(text: str) -> str:
    """Replace each control character of a text by its escape, such as `\\x1b`; tabs and line feeds stay."""
    return text if text.isprintable() else _CONTROLS.sub(_escaped, text)


def say(text: object, *, stderr: bool = False, flush: bool = False) -> None:
    """Print a line; control characters in it are escaped."""
    print(visible(str(text)), file=sys.stderr if stderr else sys.stdout, flush=flush or stderr)


def print_json(data: object) -> None:
    """Print `data` as indented JSON on stdout."""
    print(to_json(data, indent=2))


def to_json(data: object, indent: int | None = None) -> str:
    """Return `data` as JSON for stdout, with control characters escaped; parsing it gives the same data.

    If stdout is not UTF-8, every character beyond ASCII is escaped.
    """
    plain = not is_utf8(sys.stdout)
    text = json.dumps(data, indent=indent, ensure_ascii=plain, allow_nan=False, default=str)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[RenderableType | None]]) -> None:
    """Print a table on stdout; None is a dash."""
    console().print(table(title, columns, rows))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[RenderableType | None]]) -> RenderableType:
    """Return a table in the common style of all commands; None is a dash."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(
        title=Text(visible(title)),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        made.add_column(visible(column))
    for row in rows:
        made.add_row(
            *(Text("-" if cell is None else visible(cell)) if isinstance(cell, str | None) else cell for cell in row)
        )
    return made


def print_fields(data: Mapping[str, Any]) -> None:
    """Print one line per field on stdout, nested mappings indented."""
    out = console()
    for line in _lines(data, 0):
        out.print(visible(line), soft_wrap=True)


def hint(text: str) -> None:
    """Print a hint on stderr, such as the next command to run."""
    say(text, stderr=True)


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def _lines(data: Mapping[str, Any], depth: int) -> Iterable[str]:
    indent = "  " * depth
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}"
            yield from _lines(value, depth + 1)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{indent}{key}"
            for item in value:
                yield f"{indent}  - " + ", ".join(f"{k} {v}" for k, v in item.items())
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            yield f"{indent}{key:<{max(1, 24 - 2 * depth)}} {'-' if shown is None or shown == '' else shown}"
