"""The installed `illume-loop` as a real process, on a configuration that ends within seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.warm import run_warm

ILLUME_LOOP = Path(sys.executable).with_name("illume-loop")
TIMEOUT_SECONDS = 240

TINY = """
[run]
name = "tiny"
rounds = 2
[sampling]
prompts_per_round = 12
samples_per_prompt = 4
batch_size = 16
[assess]
batch_size = 16
[curate]
real_rows = 16
[train]
epochs = 1
batch_size = 16
[gate]
heldout_prompts = 24
guidances = "1.25,2"
temperatures = "1"
decode_prompts = 8
closing = false
probe_items = 24
resamples = 200
"""
"""Small in every count; two rounds, several batches in each stage, and training that takes a few steps."""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without settings in it, one thread, plus `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ILLUME_")}
    return {**kept, "OMP_NUM_THREADS": "1", "ILLUME_RUNTIME__THREADS": "1", "COLUMNS": "200", **more}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended."""

    code: int
    out: str
    err: str

    @property
    def sentences(self) -> list[str]:
        """The lines of stderr that report an error."""
        lines = self.err.splitlines()
        return [line for line in lines if line.startswith("illume-loop: ") and "(stop with Ctrl-C" not in line]


def run(*args: object, cwd: Path, cold: bool = False, **more: str) -> Ended:
    """Run `illume-loop` to its end: forked from a process that has loaded its libraries, or `cold`, as installed."""
    words, env = list(map(str, args)), environment(**more)
    if not cold:
        return Ended(*run_warm(words, cwd, env, TIMEOUT_SECONDS))
    command = [str(ILLUME_LOOP), *words]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    return Ended(done.returncode, done.stdout, done.stderr)


def begin(*args: object, cwd: Path, **more: str) -> subprocess.Popen[str]:
    """Start `illume-loop` and return at once; stderr can be read line by line."""
    command = [str(ILLUME_LOOP), *map(str, args)]
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_listen_to_interrupts,
    )


def _listen_to_interrupts() -> None:
    """A shell's background job ignores SIGINT, and what it starts does too; these processes are to be interrupted."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def read_json(*args: object, cwd: Path) -> Any:
    """What a reading command prints with --json; its exit code must be 0."""
    ended = run(*args, "--json", cwd=cwd)
    assert ended.code == 0, ended.err
    return json.loads(ended.out)


def tiny_config(folder: Path) -> Path:
    """The tiny configuration as a file."""
    path = folder / "tiny.toml"
    path.write_text(TINY, encoding="utf-8")
    return path
