"""The JSON contract: keys and types that scripts rely on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from illume_loop.domains.shapes.render import CANVAS
from tests.acceptance.conftest import Finished
from tests.support.process import read_json, run


def _has(row: dict[str, Any], **kinds: type | tuple[type, ...]) -> None:
    for key, kind in kinds.items():
        assert key in row, f"no key {key} in {sorted(row)}"
        assert isinstance(row[key], kind), f"{key} is {row[key]!r}"


def test_rounds_ls(finished: Finished) -> None:
    rows = read_json("rounds", "ls", cwd=finished.folder)
    assert [row["index"] for row in rows] == [1, 2]
    for row in rows:
        _has(row, state=str, parent=str, candidate=str, samples=int, accepted=int, dead_units=int)
        _has(row, judge_auc=(float, type(None)), decision=str, reasons=list, seconds=dict, manifest_sha256=str)
        for side in ("parent", "candidate"):
            _has(row["heldout"][side], mean=float, low=float, high=float, n=int)
            assert 0 <= row["heldout"][side]["low"] <= row["heldout"][side]["mean"] <= row["heldout"][side]["high"] <= 1
            assert row["heldout"][side]["n"] == 24
            _has(row["diversity"], **{side: float})
            _has(row["understanding"], **{side: float})
        _has(row["heldout"]["delta"], mean=float, low=float, high=float)
        assert row["decision"] == row["state"]
        assert row["decision"] in ("promoted", "rejected")
        assert len(row["manifest_sha256"]) == 64
        assert row["samples"] == 48
        assert row["dead_units"] == 0
        assert row["reasons"]
        assert {"sampling", "training"} <= set(row["seconds"])


def test_rounds_show(finished: Finished) -> None:
    row = read_json("rounds", "show", "2", cwd=finished.folder)
    assert row["index"] == 2
    assert row["manifest_sha256"] == read_json("rounds", "ls", cwd=finished.folder)[1]["manifest_sha256"]


def test_samples_are_listed_page_by_page(finished: Finished) -> None:
    whole = read_json("samples", "ls", "--limit", "1000", cwd=finished.folder)
    first = read_json("samples", "ls", "--limit", "40", cwd=finished.folder)
    rest = read_json("samples", "ls", "--limit", "1000", "--after", first[-1]["id"], cwd=finished.folder)
    assert [row["id"] for row in first + rest] == [row["id"] for row in whole]
    assert len(whole) == 96
    for row in whole:
        _has(row, id=int, round=int, model=str, prompt=str, seed=int, score=float, passed=bool, failed=list)
        _has(row, accepted=bool, image_sha256=str)


def test_samples_are_filtered(finished: Finished) -> None:
    accepted = read_json("samples", "ls", "--accepted", "--round", "1", "--limit", "1000", cwd=finished.folder)
    rejected = read_json("samples", "ls", "--rejected", "--round", "1", "--limit", "1000", cwd=finished.folder)
    assert len(accepted) == read_json("rounds", "ls", cwd=finished.folder)[0]["accepted"]
    assert len(accepted) + len(rejected) == 48
    assert {row["accepted"] for row in accepted} == {True}
    assert {row["round"] for row in accepted + rejected} == {1}


def test_lineage_goes_both_ways(finished: Finished) -> None:
    accepted = read_json("samples", "ls", "--accepted", "--round", "1", cwd=finished.folder)[0]
    detail = read_json("samples", "show", accepted["id"], cwd=finished.folder)
    assert detail["image_sha256"] == accepted["image_sha256"]
    lineage = read_json("samples", "lineage", accepted["id"], cwd=finished.folder)
    assert {"from", "to"} <= set(lineage)
    text = str(lineage)
    assert accepted["prompt"] in text
    assert accepted["model"] in text
    for row in read_json("rounds", "ls", cwd=finished.folder):
        assert row["candidate"] in text, "a sample accepted in round 1 is learned by the candidates of both rounds"


def test_models(finished: Finished) -> None:
    rows = read_json("models", "ls", cwd=finished.folder)
    assert [row["name"] for row in rows] == ["v0001", "v0002", "v0003"]
    assert [row["state"] for row in rows].count("active") == 1
    for row in rows:
        _has(row, state=str, parent=(str, type(None)), sha256=str)
        assert read_json("models", "show", row["name"], cwd=finished.folder)["sha256"] == row["sha256"]


def test_settings() -> None:
    rows = read_json("config", "show", cwd=Path())
    for row in rows:
        _has(row, key=str, source=str, bounds=str, description=str)


def test_database(finished: Finished) -> None:
    assert run("db", "upgrade", cwd=finished.folder).code == 0
    row = read_json("db", "check", cwd=finished.folder)
    assert row["ok"] is True
    assert row["found"] == row["expected"]


def test_sample_and_assess_outside_of_a_run(tmp_path: Path) -> None:
    drawn = read_json("sample", "a red circle", "-n", "2", "-o", "drawn", "--seed", "5", cwd=tmp_path)
    _has(drawn, prompt=str, model=str, images=list)
    assert drawn["model"] == "shapes-base"
    assert [image["seed"] for image in drawn["images"]] == [5, 6]
    path = drawn["images"][0]["path"]
    with Image.open(tmp_path / path) as image:
        assert image.size == (CANVAS, CANVAS)

    row = read_json("assess", path, "a red circle", cwd=tmp_path)
    _has(row, prompt=str, model=str, reading=str, score=float, checker=dict)
    assert row["checker"]["passed"] == drawn["images"][0]["passed"]
    assert row["score"] < 0


def test_the_same_seed_draws_the_same_image_in_any_batch(tmp_path: Path) -> None:
    many = read_json("sample", "a ring", "-n", "3", "-o", "many", cwd=tmp_path)
    one = read_json("sample", "a ring", "-n", "1", "--seed", "2", "-o", "one", cwd=tmp_path)
    first, second = (tmp_path / many["images"][2]["path"], tmp_path / one["images"][0]["path"])
    with Image.open(first) as one_of_many, Image.open(second) as alone:
        difference = ImageChops.difference(one_of_many, alone).getextrema()
    # The ids are the same; decoding sums in another order in another batch, which can round a channel the other way.
    assert max(high for _, high in difference) <= 1


def test_a_version_of_the_run_draws(finished: Finished, tmp_path: Path) -> None:
    drawn = read_json("sample", "a ring", "--model", "v0002", "-o", tmp_path, cwd=finished.folder)
    assert drawn["model"] == "v0002"


def test_eval(finished: Finished) -> None:
    for suite in ("heldout", "train", "understanding", "editing"):
        row = read_json("eval", "shapes-base", "--suite", suite, "-n", "24", "--seed", "3", cwd=finished.folder)
        _has(row, suite=str, model=str, n=int, mean=float, low=float, high=float, by_category=dict, seed=int)
        assert (row["suite"], row["model"], row["n"], row["seed"]) == (suite, "shapes-base", 24, 3)
        assert sum(part["n"] for part in row["by_category"].values()) in (0, 24)
