"""Killed with SIGKILL anywhere and started again, a run ends as an undisturbed one does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]


def _killer(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "tests.support.killer", str(folder / "base"), str(folder), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1500)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _assert_all_alike(runs: list[dict[str, Any]]) -> None:
    undisturbed, *killed = runs
    assert undisturbed["kills"] == 0
    assert len(undisturbed["result"]["samples"]) == 2 * 6 * 3
    assert [round_["state"] for round_ in undisturbed["result"]["rounds"]] == ["promoted", "promoted"]
    assert all(round_["manifest_sha256"] for round_ in undisturbed["result"]["rounds"])
    for run in killed:
        assert run["result"] == undisturbed["result"], f"killed at {run['where']}, the run ended otherwise"


def test_a_kill_anywhere_changes_nothing(tmp_path: Path) -> None:
    """Points are spread over the whole run by a seed; the chain is one run that is killed again and again."""
    runs = _killer(tmp_path, "seed 0", "12")
    assert [run["kills"] for run in runs[:-1]] == [0] + [1] * 12
    assert runs[-1]["kills"] >= 3
    _assert_all_alike(runs)


def test_a_kill_anywhere_changes_nothing_where_pairs_are_learned(tmp_path: Path) -> None:
    runs = _killer(tmp_path, "pairs", "5", "train.objective=dpo")
    assert all(round_["curation"]["pairs"] > 0 for round_ in runs[0]["result"]["rounds"])
    _assert_all_alike(runs)


def test_a_kill_anywhere_changes_nothing_where_edits_are_learned(tmp_path: Path) -> None:
    runs = _killer(tmp_path, "edits", "4", "sampling.edit_share=0.5", "run.seed=1")
    assert all(round_["editing"]["delta"] for round_ in runs[0]["result"]["rounds"])
    _assert_all_alike(runs)


def test_a_kill_anywhere_changes_nothing_where_decodes_are_tried(tmp_path: Path) -> None:
    values = ("gate.guidances=1,2", "gate.decode_prompts=6", "gate.closing=true")
    runs = _killer(tmp_path, "decodes", "2", *values)
    assert runs[0]["result"]["rounds"][-1]["closing"]["heldout"]["base"]["n"] == 24
    assert sum(suite == "decode" for _, suite, _ in runs[0]["result"]["evaluations"]) == 3 * 2
    _assert_all_alike(runs)
