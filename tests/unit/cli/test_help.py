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

from illume_loop import __version__
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
    for option in ("--help", "-h"):
        out = io.StringIO()
        with redirect_stdout(out):
            app([*words, option], prog_name="illume-loop", standalone_mode=False)
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
    told = json.loads(done.stdout)
    assert told[::2] == told[1::2], "-h and --help differ"
    return dict(zip(PATHS, told[::2], strict=True))


@pytest.mark.parametrize("words", PATHS, ids=lambda words: "-".join(words) or "top")
def test_help_is_frozen(helps: dict[tuple[str, ...], str], words: tuple[str, ...]) -> None:
    lines = [line.rstrip() for line in helps[words].splitlines()]
    check_golden(f"tests/golden/help/{'-'.join(words) or 'top'}.txt", "\n".join(lines).strip() + "\n")


def test_the_installed_command_says_the_same(helps: dict[tuple[str, ...], str]) -> None:
    done = subprocess.run([ILLUME_LOOP, "--help"], env=PLAIN, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (helps[()], "")


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rou", {"rounds"}),
        ("rounds ", {"ls", "show", "watch", "cancel", "retry", "health"}),
        ("bench sam", {"sampling"}),
        ("samples ls --acc", {"--accepted"}),
    ],
)
def test_bash_completes_a_line(line: str, offered: set[str]) -> None:
    words = ["illume-loop", *line.split(" ")]
    script = (
        'source <(illume-loop --show-completion bash) && COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) '
        '&& _illume_loop_completion illume-loop && printf "%s\n" "${COMPREPLY[@]}"'
    )
    env = PLAIN | {"PATH": f"{ILLUME_LOOP.parent}:{PLAIN['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", *words],
        env=env,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert set(done.stdout.split()) == offered
    assert done.stderr == ""


def test_installing_the_completion_writes_to_the_home_folder_alone(tmp_path: Path) -> None:
    env = PLAIN | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [ILLUME_LOOP, "--install-completion", "bash"], env=env, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert str(script) in (tmp_path / ".bashrc").read_text(encoding="utf-8")


def test_the_version_is_the_package_s() -> None:
    done = subprocess.run([ILLUME_LOOP, "--version"], env=PLAIN, capture_output=True, text=True, check=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{__version__}\n", "")


def test_importing_the_command_line_pulls_in_nothing_heavy() -> None:
    code = (
        "import sys, illume_loop.cli.main\n"
        "heavy = {'torch', 'transformers', 'numpy', 'sqlalchemy', 'alembic', 'pydantic', 'PIL', 'jinja2'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
