"""The command line's surface is frozen, light and quick."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from illume_loop.cli.main import app
from tests.support.golden import check_golden

ILLUME_LOOP = Path(sys.executable).with_name("illume-loop")
PLAIN = {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PATH": "/usr/bin:/bin"}


def _paths(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _paths(child, (*words, name))


@pytest.mark.parametrize("words", list(_paths(typer.main.get_command(app))), ids=lambda words: "-".join(words) or "top")
def test_help_is_frozen(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [ILLUME_LOOP, *words, "--help"], env=PLAIN, capture_output=True, text=True, check=True, timeout=60
    )
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    check_golden(f"tests/golden/help/{'-'.join(words) or 'top'}.txt", "\n".join(lines).strip() + "\n")
    assert done.stderr == ""


def test_importing_the_command_line_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, illume_loop.cli.main\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sqlalchemy', 'alembic', 'pydantic', 'PIL', 'jinja2'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
