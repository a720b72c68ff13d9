"""The README's map: one line for each source file, taken from the first sentence of its docstring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.support.golden import ROOT

PACKAGES = ("illume_loop", "workers", "db", "migrations")
BEGIN, END = "<!-- map: begin -->\n", "<!-- map: end -->\n"


def with_map(readme: str) -> str:
    """The README with its map written anew."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + "\n" + "".join(f"{line}\n" for line in _lines()) + END + after


def _lines() -> Iterator[str]:
    for package in PACKAGES:
        described = [(path, _sentence(path)) for path in sorted((ROOT / package).rglob("*.py"), key=_order)]
        folder = None
        for path, sentence in described:
            if not sentence:
                continue
            if path.parent != folder:
                if folder is not None:
                    yield ""
                folder = path.parent
                yield f"**{folder.relative_to(ROOT)}/**"
                yield ""
            yield f"- `{path.name}` {sentence}"
        if folder is not None:
            yield ""


def _order(path: Path) -> tuple[str, str]:
    return str(path.parent), path.name


def _sentence(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.split(". ")[0].rstrip(".:")
