"""No command ends in an AssertionError: a database that contradicts itself is refused by an error with a name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.golden import ROOT

ROOMS = ("illume_loop/cli", "illume_loop/loop", "illume_loop/dashboard", "db", "workers", "migrations")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def _assertions(path: Path) -> Iterator[int]:
    """Return the lines of assertions, but for those about the type of an argument, which stands for a signature."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assert):
            test = node.test
            is_type = isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "isinstance"
            if not is_type:
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_asserted_of_what_is_stored(path: Path) -> None:
    assert list(_assertions(path)) == []
