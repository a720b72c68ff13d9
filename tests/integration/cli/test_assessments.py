"""`assess` and `samples show` tell the same of an image: score, questions with log-odds, critique."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest

from illume_loop.cli import assess, judge, samples
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.shapes.render import render
from illume_loop.errors import UsageError
from tests.support.canned_model import save_canned
from tests.support.canned_run import small_settings, start
from tests.support.plugged import PLUGIN

Captured = pytest.CaptureFixture[str]
PROMPT = "a red circle and a blue ring"


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image of another prompt, in a folder where there is no run."""
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.chdir(tmp_path)
    save_canned(tmp_path / "base", 0.5)
    render(parse("a red circle and a blue square"), Random(1)).save(tmp_path / "drawn.png")
    return tmp_path / "drawn.png"


def test_an_image_is_judged_with_questions_and_a_critique(image: Path, capsys: Captured) -> None:
    assess.assess(image, PROMPT, model="base", as_json=True)
    row = json.loads(capsys.readouterr().out)
    assert (row["state"], row["reading"], row["score"]) == (
        "ok",
        "prompt-likelihood",
        row["readings"]["prompt-likelihood"],
    )
    domain = ShapesDomain()
    asked = domain.questions(domain.parse(PROMPT))
    answers = domain.answers(render(parse("a red circle and a blue square"), Random(1)), domain.parse(PROMPT))
    assert [(one["criterion"], one["question"]) for one in row["questions"]] == [(q.criterion, q.text) for q in asked]
    assert [one["log_odds"] > 0 for one in row["questions"]] == answers
    assert row["critique"]["object"]["verdict"] == "no"
    assert row["critique"]["color"]["verdict"] == "yes"
    assert row["checker"]["passed"] is False
    assess.assess(image, PROMPT, model="base")
    out = capsys.readouterr().out
    for one in row["questions"]:
        answer = "yes" if one["log_odds"] > 0 else "no"
        assert f"{answer} ({one['criterion']}, log-odds {one['log_odds']:+.2f})" in out
    assert "no: a square and a circle" in out, "from left to right"
    assert row["critique"]["analysis"] in out


def test_a_calibrated_judge_tells_probabilities(image: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    judge.fit(Path("c.json"), model="base", prompts=60, samples=3)
    monkeypatch.setenv("ILLUME_ASSESS__CALIBRATION", "c.json")
    monkeypatch.setenv("ILLUME_ASSESS__READING", "combined")
    capsys.readouterr()
    assess.assess(image, PROMPT, model="base", as_json=True)
    row = json.loads(capsys.readouterr().out)
    assert row["probability"] < 0.1
    assert row["score"] < 0
    assert all((one["probability"] > 0.5) == (one["log_odds"] > 0) for one in row["questions"])
    assess.assess(image, PROMPT, model="base")
    assert ", probability 0." in capsys.readouterr().out
    monkeypatch.setenv("ILLUME_ASSESS__CALIBRATION", "auto")
    with pytest.raises(UsageError, match="must name a file"):
        assess.assess(image, PROMPT, model="base")


def test_a_sample_shows_what_its_assessments_rest_on(tmp_path: Path, capsys: Captured) -> None:
    settings = small_settings(
        tmp_path / "base", assess__reading="yes-no", assess__critiques=True, assess__also_frozen=True, run__rounds=1
    )
    start(settings, tmp_path / "run")
    samples.show(1, tmp_path / "run", as_json=True)
    row = json.loads(capsys.readouterr().out)
    checker, own, frozen = row["assessments"]
    assert [one["assessor"] for one in (checker, own, frozen)] == ["checker", "self", "frozen"]
    assert (checker["readings"], checker["questions"], checker["critique"]) == ({}, [], None)
    assert row["score"] == own["score"] == own["readings"]["yes-no"]
    assert own["questions"] == frozen["questions"], "in the first round both are the base"
    samples.show(1, tmp_path / "run")
    out = capsys.readouterr().out
    for line in ("by checker", "by self v0001", "by frozen v0001", own["critique"]["analysis"]):
        assert line in out
    for one in own["questions"]:
        assert f"({one['criterion']}, log-odds {one['log_odds']:+.2f})" in out
