"""`sample`, `assess` and `eval` take the prompts of the model that they are given; the settings and a run go before."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from illume_loop.cli import assess, config, sample
from illume_loop.cli.evaluate import Suite, evaluate
from illume_loop.errors import PromptOutsideGrammarError, UsageError
from illume_loop.loop.run_directory import stored_settings
from tests.support.canned_run import small_settings, start, table
from tests.support.plugged import PLUGIN
from tests.support.process import run
from tests.support.tiny_janus import save_tiny_janus

ANY = "an elephant on a street"


@pytest.fixture
def janus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Janus in a folder in which there is no run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(PLUGIN)
    return save_tiny_janus(tmp_path / "janus")


def test_a_janus_draws_and_judges_any_prompt(janus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample.sample(ANY, out=Path("drawn"), model="janus", as_json=True)
    told = capsys.readouterr()
    (image,) = json.loads(told.out)["images"]
    assert (image["passed"], "was never taught" in told.err) == (None, False)
    assess.assess(Path(image["path"]), ANY, model="janus", as_json=True)
    assert json.loads(capsys.readouterr().out)["checker"] is None


def test_a_janus_is_no_part_of_the_run_beside_it(janus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start(small_settings(Path("base"), run__rounds=1), Path("illume-run"))
    sample.sample(ANY, out=Path("drawn"), model="janus", as_json=True)
    assert len(json.loads(capsys.readouterr().out)["images"]) == 1
    with pytest.raises(PromptOutsideGrammarError):
        sample.sample(ANY, out=Path("drawn"))
    evaluate("janus", Suite.HELDOUT, 2, as_json=True)
    assert json.loads(capsys.readouterr().out)["n"] == 2, "a suite in a run is made of the run's prompts"


def test_a_prompt_outside_of_the_grammar_is_answered_with_the_command_that_takes_it(tmp_path: Path) -> None:
    ended = run("sample", "a black bird in the rain", "--model", "shapes-instruct", cwd=tmp_path)
    assert (ended.code, ended.out) == (2, "")
    variable, *words = shlex.split(ended.err.split("`")[1])
    assert words[0] == "illume-loop"
    name, value = variable.split("=")
    followed = run(*words[1:], cwd=tmp_path, **{name: value})
    assert (followed.code, followed.out.strip()) == (0, "a-black-bird-in-the-rain-0.png")
    warned, hint = followed.err.splitlines()
    assert warned.startswith("illume-loop: shapes-instruct was never taught 'black', 'bird', 'in', 'rain', and takes")
    assert hint.startswith("next: illume-loop assess")


def test_eval_without_prompts_says_where_to_get_some(janus: Path) -> None:
    with pytest.raises(UsageError, match=r"has 0 prompts in the split 'heldout'.*run\.domain = 'shapes'"):
        evaluate("janus", Suite.HELDOUT, 2)


def test_a_hub_id_need_not_be_fetched_to_check_settings(
    janus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ILLUME_RUN__BASE", "somebody/no-such-model")
    config.check()
    assert "somebody/no-such-model decides run.domain" in capsys.readouterr().err


def test_a_run_goes_on_in_the_domain_that_it_was_started_in(janus: Path) -> None:
    settings = small_settings(Path("base"), run__rounds=1)
    start(settings, Path("run"))
    again = settings.model_copy(update={"run": settings.run.model_copy(update={"domain": "auto", "rounds": 2})})
    start(again, Path("run"))
    assert [row["index"] for row in table(Path("run"))] == [1, 2]
    stored = stored_settings(Path("run"))
    assert stored is not None
    assert stored["run"]["domain"] == "shapes"
