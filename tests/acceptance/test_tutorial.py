"""The tutorial's commands, as they stand there, on a finished run; and what it prints has the lines that they print."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.acceptance.conftest import Finished
from tests.support.golden import ROOT
from tests.support.process import read_json, run

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
NOT_RUN = ("pip ", "illume-loop start", "illume-loop dashboard", "illume-loop rounds watch")
"""The fixture has installed and started already; the other two end only when they are stopped."""


def _commands() -> Iterator[tuple[str, str]]:
    """(the commands of an indented block, the output that stands in the fenced one after it, if any)."""
    commands = ""
    for match in re.finditer(r"(?ms)^```text\n(?P<output>.*?)^```$|(?P<commands>(?:^ {4}\S[^\n]*\n)+)", TUTORIAL):
        if commands:
            yield commands, match["output"] or ""
        commands = re.sub(r"(?m)^ {4}", "", match["commands"] or "")
    yield commands, ""


def _ran(command: str, folder: Path) -> str:
    words = shlex.split(command)
    if words[0] == "illume-loop":
        ended = run(*words[1:], cwd=folder)
        assert ended.code == 0, f"{command}: {ended.err}"
        return ended.out
    return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout


def _names(output: str) -> set[str]:
    """What stands before two blanks at the beginning of a line, where a command prints names and values."""
    return set(re.findall(r"(?m)^ *([a-z][a-z_0-9]*)(?: {2,}|$)", output))


def test_every_command_of_the_tutorial_does_what_it_says(copied: Finished) -> None:
    [followed] = set(re.findall(r"samples (?:show|lineage) (\d+)", TUTORIAL))
    first = read_json("samples", "ls", "--round", "1", "--accepted", "--limit", "1", cwd=copied.folder)[0]["id"]
    num_run = 0
    for block, shown in _commands():
        wanted = _names(shown) if re.search(r" (show|lineage) ", block) else set()
        printed = ""
        for line in block.splitlines():
            if not line.startswith(NOT_RUN):
                printed += _ran(re.sub(rf"\b{followed}\b", str(first), line), copied.folder)
                num_run += 1
        assert wanted <= _names(printed), block
    assert num_run > 8
