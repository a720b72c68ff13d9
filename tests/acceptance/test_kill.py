"""Killed at any moment, the same command continues, and ends with the manifests of a run that was never stopped."""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path
from threading import Event

import pytest

from tests.acceptance.conftest import Finished
from tests.support.process import begin, read_json, run, tiny_config

STAGES = ("sampling", "assessing", "training", "gating")


def _manifests(folder: Path) -> list[str]:
    return [row["manifest_sha256"] for row in read_json("rounds", "ls", cwd=folder)]


def _stop_in(process: subprocess.Popen[str], prefix: str, seconds: float, number: signal.Signals) -> str:
    """Signal the process some time after its first line that begins with `prefix`; the rest of stderr."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(prefix):
            break
    Event().wait(seconds)  # the moment is what is tested: anywhere in the stage
    process.send_signal(number)
    rest = process.stderr.read()
    process.wait()
    return rest


@pytest.mark.parametrize("seed", [0, 1])
def test_killed_at_seeded_moments_the_manifests_are_the_same(finished: Finished, tmp_path: Path, seed: int) -> None:
    config = tiny_config(tmp_path)
    moments = random.Random(seed)
    for index in (1, 2):
        stage = moments.choice(STAGES)
        with begin("start", "--config", config, cwd=tmp_path) as process:
            _stop_in(process, f"round {index}/2 {stage}", moments.uniform(0.0, 0.6), signal.SIGKILL)
        assert process.returncode in (-signal.SIGKILL, 0)

    ended = run("start", "--config", config, cwd=tmp_path)

    assert ended.code == 0, ended.err
    assert _manifests(tmp_path) == _manifests(finished.folder)
    whole, killed = (read_json("rounds", "ls", cwd=folder) for folder in (finished.folder, tmp_path))
    assert [row["heldout"] for row in killed] == [row["heldout"] for row in whole]


def test_interrupted_it_says_how_to_continue(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    with begin("start", "--config", config, cwd=tmp_path) as process:
        said = _stop_in(process, "round 1/2 sampling", 0.0, signal.SIGINT)
    assert process.returncode == 130
    assert "continue with `illume-loop start --run-dir illume-run`" in said
    assert "Traceback" not in said
