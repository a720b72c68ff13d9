"""What commands print: results on stdout (a table, or JSON), hints for the next command on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PIPED_WIDTH = 200
"""Columns where stdout is no terminal: wide enough that no cell of our tables is cut."""


def console() -> Console:
    """A rich console on stdout that never cuts a table short in a pipe."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def print_json(data: object) -> None:
    """`data` as indented JSON on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[RenderableType | None]]) -> None:
    """A table on stdout; a cell of None shows as a dash."""
    console().print(table(title, columns, rows))


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[RenderableType | None]]) -> RenderableType:
    """A table as all commands show it; a cell of None shows as a dash."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    for column in columns:
        made.add_column(column)
    for row in rows:
        made.add_row(*("-" if cell is None else cell for cell in row))
    return made


def print_fields(data: Mapping[str, Any]) -> None:
    """One line per field, nested mappings indented, on stdout."""
    from rich.markup import escape

    out = console()
    for line in _lines(data, 0):
        out.print(escape(line), soft_wrap=True)


def hint(text: str) -> None:
    """A next command to run, on stderr."""
    print(text, file=sys.stderr)


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
