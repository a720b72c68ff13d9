"""Every command on a pipe that is not UTF-8: readable text, valid JSON, its own exit code, and no library's line.

What begins something large is refused here. Runs of the canned backend are small and real.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from illume_loop.cli.main import app
from tests.support.canned_study import canned_study
from tests.support.dashboard import looked_at
from tests.support.plugged import plugged
from tests.support.process import Ended, run

FOREIGN = ("site-packages", "Warning", "Traceback", "unexpected ", "it/s]", "Loading weights", "Fetching")
"""What is in no line of ours on stderr."""

COMMANDS: dict[str, list[tuple[int, str]]] = {
    "start": [(0, "--run-dir run")],
    "rounds ls": [(0, "--run-dir run"), (0, "--run-dir run --json")],
    "rounds show": [(0, "1 --run-dir run"), (0, "1 --run-dir run --json"), (2, "99 --run-dir run")],
    "rounds watch": [(0, "--run-dir run"), (0, "--run-dir run --json")],
    "rounds cancel": [(2, "99 --run-dir run")],
    "rounds retry": [(2, "99 --run-dir run")],
    "doctor": [(0, "--run-dir run")],
    "rounds health": [(3, "--run-dir run")],
    "samples ls": [(0, "--run-dir run"), (0, "--run-dir run --json")],
    "samples show": [(0, "1 --run-dir run"), (0, "1 --run-dir run --json")],
    "samples lineage": [(0, "1 --run-dir run"), (0, "1 --run-dir run --json")],
    "samples export": [(0, f"--run-dir run -o {kind} --format {kind}") for kind in ("parquet", "datasets", "jsonl")],
    "reviews ls": [(0, "--run-dir run"), (0, "--run-dir run --json")],
    "reviews add": [(0, "1 --agree --run-dir run")],
    "models ls": [(0, "--run-dir run"), (0, "--run-dir run --json")],
    "models show": [(0, "v0002 --run-dir run"), (0, "v0002 --run-dir run --json")],
    "models promote": [(0, "v0001 --yes --run-dir run")],
    "models rollback": [(4, "--yes --run-dir run")],
    "models export": [(2, "v0009 -o exported --run-dir run")],
    "model init": [(2, "-o made --llm nowhere --vision nowhere")],
    "model tokenizer": [(2, "nowhere nowhere -o made")],
    "prompts import": [(0, "prompts.txt --split train -o set.jsonl")],
    "prompts ls": [(0, "set.jsonl"), (0, "set.jsonl --json")],
    "sample": [
        (0, "'a red circle' --model base -o drawn"),
        (0, "'a red circle' --model base -o drawn --json"),
        (2, "größer --model base -o drawn"),
    ],
    "assess": [(2, "nowhere.png größer --model base")],
    "eval": [(0, "base --suite heldout -n 8"), (0, "base --suite understanding -n 8 --json")],
    "judge fit": [(0, "--model base --prompts 60 --samples 3 -o c.json")],
    "judge show": [(0, "c.json"), (0, "c.json --json")],
    "data tokenize": [(2, "nowhere.tar --model nowhere -o shards")],
    "data ls": [(2, ".")],
    "data show": [(2, ".")],
    "pretrain": [(2, "--recipe nowhere -o made")],
    "ablate": [(0, "ls"), (0, "judges.toml -o study")],
    "report": [(0, "run -o page")],
    "bench": [(0, "sampling --size tiny --batch 1 --ids 4 --prompt-ids 4 --repeats 1 --threads 1")],
    "worker": [(2, "--role generator")],
    "workers ls": [(2, "--run-dir run")],
    "workers drain": [(2, "nobody --run-dir run")],
    "workers health": [(2, "--run-dir run")],
    "dashboard": [(2, "--run-dir run --host 0.0.0.0")],
    "config show": [(0, ""), (0, "--json")],
    "config check": [(0, "")],
    "db upgrade": [(0, "--run-dir run")],
    "db check": [(0, "--run-dir run")],
}


def _leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    children = getattr(command, "commands", {})
    if not children:
        yield " ".join(words)
    for name, child in children.items():
        yield from _leaves(child, (*words, name))


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, Ended]]:
    """Every command as it ended, and the code that it should have ended with, in a folder with a run of two rounds."""
    folder = tmp_path_factory.mktemp("every")
    looked_at(folder)
    canned_study(folder)
    (folder / "prompts.txt").write_text("ein größerer Vogel → rot\n", encoding="utf-8")
    env = plugged(PYTHONIOENCODING="ascii", USER="Jörg", LOGNAME="Jörg")
    return {
        f"{command} {args}": (code, run(*command.split(), *shlex.split(args), cwd=folder, **env))
        for command, several in COMMANDS.items()
        for code, args in several
    }


def test_every_command_is_here() -> None:
    assert set(_leaves(typer.main.get_command(app))) == set(COMMANDS)


def test_every_command_ends_as_it_should(ended: dict[str, tuple[int, Ended]]) -> None:
    wrong = {name: (one.code, one.err) for name, (code, one) in ended.items() if one.code != code}
    assert wrong == {}


def test_nothing_is_printed_that_the_terminal_lacks(ended: dict[str, tuple[int, Ended]]) -> None:
    assert [name for name, (_, one) in ended.items() if not (one.out + one.err).isascii()] == []
    assert "v0002" in ended["rounds ls --run-dir run"][1].out


def test_no_librarys_line_is_shown(ended: dict[str, tuple[int, Ended]]) -> None:
    shown = {name: one.err for name, (_, one) in ended.items() if any(word in one.err for word in FOREIGN)}
    assert shown == {}


def test_json_stays_json(ended: dict[str, tuple[int, Ended]]) -> None:
    for name, (_, one) in ended.items():
        if "--json" in name:
            for text in one.out.splitlines() if "watch" in name else [one.out]:
                assert json.loads(text) is not None, name
