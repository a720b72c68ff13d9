"""`start --dry-run` says what a run would do, fill and take, and writes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.acceptance.conftest import Finished
from tests.support.process import Ended, run, tiny_config


def _dry(folder: Path, *more: str, **variables: str) -> Ended:
    config = tiny_config(folder)
    before = sorted(folder.rglob("*"))
    ended = run("start", "--config", config, "--dry-run", *more, cwd=folder, **variables)
    assert sorted(folder.rglob("*")) == before, "a dry run leaves nothing behind"
    return ended


def test_the_plan_of_a_new_run(tmp_path: Path) -> None:
    ended = _dry(tmp_path, "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert (found["domain"], found["rounds"]) == ("shapes", {"in_all": 2, "ended": 0, "left": 2})
    assert found["each_round"]["samples"] == 12 * 4
    assert found["each_round"]["units"] == {"sample": 3, "assess": 3, "train": 1}
    assert found["each_round"]["gate_draws_at_most"] == 4 * 24 + 12 * 8 + 2 * 8
    assert found["in_all"]["samples"] == 2 * 12 * 4
    assert found["in_all"]["gate_draws_at_most"] == 2 * (4 * 24 + 12 * 8 + 2 * 8) + 12 * 8 + 2 * 8
    assert found["in_all"]["training_steps_at_most"] == 3 + 5, "26 and 51 accepted samples at most, 16 real rows"
    assert set(found["time"]["by_stage"]) == {"drawing", "judging", "training", "gate"}
    assert found["time"]["seconds"] > 0
    assert found["disk"]["checkpoints_bytes"] > 3 * 12_000_000
    assert 0 < found["disk"]["images_bytes"] < found["disk"]["free_bytes"]


def test_the_plan_is_kept_by_the_run(finished: Finished) -> None:
    ended = run("start", "--dry-run", "--json", "--rounds", "3", cwd=finished.folder)
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["rounds"] == {"in_all": 3, "ended": 2, "left": 1}
    rows = json.loads(run("rounds", "ls", "--json", cwd=finished.folder).out)
    assert {row["samples"] for row in rows} == {json.loads(ended.out)["each_round"]["samples"]}


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"ILLUME_RUN__BASE": "somebody/no-such-model", "HF_HUB_OFFLINE": "1"}, "is not on this machine yet"),
        ({"ILLUME_RUN__EXECUTOR": "celery"}, "workers on other machines do the work"),
    ],
)
def test_a_time_that_is_not_known_is_said_to_be_so(tmp_path: Path, variables: dict[str, str], told: str) -> None:
    variables = {"ILLUME_RUN__DOMAIN": "shapes", **variables}
    ended = _dry(tmp_path, **variables)
    assert ended.code == 0, ended.err
    assert told in ended.out
    assert "images                 not known" in ended.out


def test_what_a_start_refuses_a_dry_run_refuses(tmp_path: Path) -> None:
    ended = _dry(tmp_path, ILLUME_GATE__HELDOUT_PROMPTS="99999")
    assert (ended.code, ended.out) == (2, "")
    assert "99999 were asked for" in ended.err
    alone = run("start", "--json", cwd=tmp_path)
    assert (alone.code, "--json is for --dry-run" in alone.err) == (2, True)
