"""`prompts import` and `ls`, and what the other commands do where nothing can be checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from illume_loop.cli import assess, config, judge, prompts, sample
from illume_loop.cli.evaluate import Suite, evaluate
from illume_loop.cli.prompts import Format, SplitName
from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.errors import NoCheckerError, OtherEvaluationError, PromptFileError, UsageError
from tests.support.canned_model import save_canned
from tests.support.golden import ROOT
from tests.support.plugged import PLUGIN

Captured = pytest.CaptureFixture[str]
METADATA = [
    {"tag": "colors", "include": [{"class": "circle", "count": 1, "color": "red"}], "prompt": "a red circle"},
    {"tag": "single_object", "include": [{"class": "ring", "count": 1}], "prompt": "a picture of a ring"},
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files of prompts and a base, in which there is no run."""
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.chdir(tmp_path)
    save_canned(tmp_path / "base", 0.6)
    Path("metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in METADATA))
    Path("colors_train.txt").write_text("A ring.\na blue ring\na blue ring\n")
    return tmp_path


def _json(capsys: Captured) -> Any:
    return json.loads(capsys.readouterr().out)


def test_sets_are_imported_and_listed(folder: Path, capsys: Captured) -> None:
    prompts.import_prompts([Path("metadata.jsonl")], SplitName.HELDOUT, as_json=True)
    assert _json(capsys)["files"] == [{"path": "metadata.jsonl", "format": "geneval", "prompts": 2}]
    prompts.import_prompts([Path("colors_train.txt")], SplitName.TRAIN, as_json=True)
    told = _json(capsys)
    assert (told["added"], told["known"]) == (1, 1)
    (out,) = told["kept_out"]
    assert out == {
        "text": "A ring.",
        "split": "train",
        "other_text": "a picture of a ring",
        "other_split": "heldout",
    }
    prompts.ls(Path("prompts.jsonl"), as_json=True)
    assert (
        _json(capsys)
        == told["counts"]
        == [
            {"split": "heldout", "category": "colors", "prompts": 1, "with_spec": 1},
            {"split": "heldout", "category": "single_object", "prompts": 1, "with_spec": 1},
            {"split": "train", "category": "colors_train", "prompts": 1, "with_spec": 0},
        ]
    )
    prompts.import_prompts([Path("colors_train.txt")], SplitName.TRAIN)
    assert "not added to train: 'A ring.', because heldout has 'a picture of a ring'" in capsys.readouterr().out


def test_nothing_is_imported_by_halves(folder: Path, capsys: Captured) -> None:
    Path("bad.jsonl").write_text('{"prompt": "a cup"}\n{"prompt": ""}\n')
    with pytest.raises(PromptFileError, match=r"bad\.jsonl, line 2: the prompt is empty; nothing was imported"):
        prompts.import_prompts([Path("colors_train.txt"), Path("bad.jsonl")], SplitName.TRAIN)
    with pytest.raises(UsageError, match=r"colors_train\.txt does not say the split of its prompts"):
        prompts.import_prompts([Path("colors_train.txt")])
    assert not Path("prompts.jsonl").exists()
    prompts.import_prompts([Path("colors_train.txt")], SplitName.PROBE, Format.TEXT, "mine", Path("sets/one.jsonl"))
    assert {json.loads(line)["category"] for line in Path("sets/one.jsonl").read_text().splitlines()} == {"mine"}


@pytest.mark.parametrize("name", ["janus-pro-1b", "janus-pro-7b"])
def test_settings_name_a_set_that_is_there(folder: Path, name: str) -> None:
    file = ROOT / "configs" / f"{name}.toml"
    with pytest.raises(
        PromptFileError, match=r"prompts\.jsonl: it is not there; make it with `illume-loop prompts import"
    ):
        config.check(file)
    prompts.import_prompts([Path("metadata.jsonl")], SplitName.HELDOUT)
    config.check(file)


@pytest.fixture
def text_settings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of the text domain over some prompts of the shapes world."""
    for split, count in ((SplitName.HELDOUT, 8), (SplitName.TRAIN, 6)):
        texts = [prompt.text for prompt in ShapesDomain().prompts(split.value, count, 0)]
        Path("shapes.txt").write_text("\n".join(texts))
        prompts.import_prompts([Path("shapes.txt")], split)
    monkeypatch.setenv("ILLUME_RUN__DOMAIN", "text")
    monkeypatch.setenv("ILLUME_RUN__PROMPTS", "prompts.jsonl")
    monkeypatch.setenv("ILLUME_RUN__BASE", "base")
    return folder


def test_commands_without_a_checker(text_settings: Path, capsys: Captured) -> None:
    capsys.readouterr()
    evaluate("base", Suite.HELDOUT, 8, as_json=True)
    heldout = _json(capsys)
    assert (heldout["n"], heldout["judge"], set(heldout["by_category"])) == (8, "base", {"shapes"})
    evaluate("base", Suite.UNDERSTANDING, 12, as_json=True)
    assert _json(capsys)["mean"] > 0.5, "it tells its right pictures apart; of its wrong ones it guesses"
    with pytest.raises(NoCheckerError, match="--suite editing needs; give another suite"):
        evaluate("base", Suite.EDITING, 8)
    with pytest.raises(NoCheckerError, match="--labels checker needs; give --labels teacher or --labels human"):
        judge.fit(Path("c.json"), model="base", prompts=5)

    sample.sample("a red circle", out=Path("drawn"), model="base", as_json=True)
    (image,) = _json(capsys)["images"]
    assert (image["passed"], image["failed"]) == (None, [])
    assess.assess(Path(image["path"]), "a red circle", model="base", as_json=True)
    assert _json(capsys)["checker"] is None


def test_geneval_without_a_run(folder: Path, capsys: Captured) -> None:
    asked: dict[str, Any] = {"prompts": Path("metadata.jsonl"), "out": Path("drawn"), "as_json": True}
    evaluate("base", Suite.GENEVAL, **asked)
    row = _json(capsys)
    assert (row["suite"], row["model"], row["judge"], row["n"], row["seed"]) == ("geneval", "base", "base", 8, 0)
    assert list(row["by_category"]) == ["colors", "single_object"]
    assert (row["detector"], row["agreement"]) == (None, None)
    evaluate("base", Suite.GENEVAL, **asked)
    assert _json(capsys) == row

    (scores,) = Path("drawn").glob("scores-*.jsonl")
    evaluate("base", Suite.GENEVAL, **asked, results=scores)
    row = _json(capsys)
    assert row["agreement"]["share"] == 1.0
    assert row["detector"]["by_category"] == row["by_category"]
    evaluate("base", Suite.GENEVAL, **asked | {"as_json": False}, results=scores)
    assert "base and the detector agree on 100.0 % of 8 images" in capsys.readouterr().out

    with pytest.raises(OtherEvaluationError, match="it differs in seed"):
        evaluate("base", Suite.GENEVAL, **asked, seed=1)
    with pytest.raises(UsageError, match=r"draws all prompts of --prompts FILE"):
        evaluate("base", Suite.GENEVAL)
