"""`illume-loop data`: what was tokenised can be looked at without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from illume_loop.cli.main import app
from illume_loop.data.tokenizing import Outcome


def _json(*words: str) -> Any:
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_shards_and_rows_are_shown(tokenised: tuple[Path, Outcome]) -> None:
    folder, outcome = tokenised
    shards = _json("data", "ls", str(folder))
    assert len(shards) == outcome.num_shards
    assert sum(shard["num_kept"] for shard in shards) == outcome.tally.num_kept
    whole = _json("data", "show", str(folder))
    assert (whole["rows"], whole["kept"]) == (outcome.tally.num_kept, dict(outcome.tally.kept))
    assert whole["left_out"] == dict(outcome.tally.left_out)
    row = _json("data", "show", str(folder), "0")
    assert (row["kind"], len(row["ids"][0])) == ("pair", 36)
    plain = CliRunner().invoke(app, ["data", "ls", str(folder)])
    assert "pairs.tar" in plain.output


def test_what_is_not_there_is_told(tokenised: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, _ = tokenised
    for words, sentence in (
        (["show", str(tmp_path)], f"There is no tokenised data in {tmp_path}; make it with `illume-loop data tokenize"),
        (["show", str(folder), "999"], "There is no row '999 (of 43)'"),
        (["tokenize", "x.tar", "--model", "m", "-o", "o", "--field", "colour=red"], "--field takes FIELD=NAME"),
    ):
        done = CliRunner().invoke(app, ["data", *words])
        assert done.exit_code == 1
        assert sentence in str(done.exception)


@pytest.mark.parametrize("words", [["ls"], ["show"]])
def test_looking_needs_no_torch(tokenised: tuple[Path, Outcome], words: list[str]) -> None:
    code = (
        "import sys; from illume_loop.cli.main import app\n"
        f"app(['data', *{words!r}, {str(tokenised[0])!r}], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, stdout=subprocess.DEVNULL)
