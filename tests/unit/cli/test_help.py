"""The command line's surface is frozen, light and quick."""

from __future__ import annotations

import json
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


PATHS = list(_paths(typer.main.get_command(app)))
EVERY_HELP = """
import io, json, sys
from contextlib import redirect_stdout
from illume_loop.cli.main import app
told = []
for words in json.loads(sys.argv[1]):
    out = io.StringIO()
    with redirect_stdout(out):
        app([*words, "--help"], prog_name="illume-loop", standalone_mode=False)
    told.append(out.getvalue())
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def helps() -> dict[tuple[str, ...], str]:
    """What every command says of itself, from one process."""
    done = subprocess.run(
        [sys.executable, "-c", EVERY_HELP, json.dumps(PATHS)],
        env=PLAIN,
        cwd=ILLUME_LOOP.parent,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == ""
    return dict(zip(PATHS, json.loads(done.stdout), strict=True))


@pytest.mark.parametrize("words", PATHS, ids=lambda words: "-".join(words) or "top")
def test_help_is_frozen(helps: dict[tuple[str, ...], str], words: tuple[str, ...]) -> None:
    lines = [line.rstrip() for line in helps[words].splitlines()]
    check_golden(f"tests/golden/help/{'-'.join(words) or 'top'}.txt", "\n".join(lines).strip() + "\n")


def test_the_installed_command_says_the_same(helps: dict[tuple[str, ...], str]) -> None:
    done = subprocess.run([ILLUME_LOOP, "--help"], env=PLAIN, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (helps[()], "")


def test_importing_the_command_line_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, illume_loop.cli.main\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sqlalchemy', 'alembic', 'pydantic', 'PIL', 'jinja2'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
