"""A run that learns assessments, on the canned backend: what its manifests hold, and what its controls change."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from illume_db.curation import examples_of
from illume_db.samples import lineage
from illume_db.tables import Assessment, Example, Manifest
from illume_loop.errors import RoundFailedError, SettingsError
from illume_loop.loop.canonical import manifest_sha256
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import result, small_settings, start, table

VALUES: dict[str, Any] = {
    "run__rounds": 2,
    "sampling__prompts_per_round": 12,
    "assess__critiques": True,
    "curate__assessment_rows": 12,
    "train__objective": "assess-sft",
}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; read only."""
    folder = tmp_path_factory.mktemp("run")
    start(small_settings(folder / "base", **VALUES), folder / "run")
    return folder / "run"


def test_a_manifest_holds_images_captions_and_assessments_of_both_kinds(run_dir: Path) -> None:
    earlier = 0
    with open_run(run_dir) as run:
        written = dict(map(tuple, run.session.execute(select(Assessment.sample_id, Assessment.critique))))
        for manifest, row in zip(
            run.session.scalars(select(Manifest).order_by(Manifest.id)), table(run_dir), strict=True
        ):
            counts = row["curation"]
            examples = examples_of(run.session, manifest.id)
            kinds = Counter(example.kind for example in examples)
            assert counts["earlier_assessments"] == earlier
            assert 0 < counts["assessed"] + counts["corrected"] <= 12
            earlier += counts["assessed"] + counts["corrected"]
            assert kinds["assess"] + kinds["correct"] == earlier
            assert kinds["draw"] > 0
            assert kinds["read"] > 0
            assert manifest_sha256(examples) == manifest.sha256
            for example in examples:
                assessed = example.rejected or example.sample
                if example.answer is not None and assessed is not None:
                    critique = json.loads(example.answer)
                    assert critique == written[assessed.sample_id]
                    faults = [key for key, told in critique.items() if key != "analysis" and told["verdict"] == "no"]
                    assert bool(faults) == (example.kind == "correct")
        assert {example.kind for example in examples} == {"draw", "read", "assess", "correct"}
        bad = run.session.scalars(select(Example.rejected_id).where(Example.kind == "correct")).first()
        assert bad is not None
        told = lineage(run.session, run.run_id, bad)
    assert told is not None
    assert told["to"][0]["kinds"] == ["rejected"]


def test_the_same_run_on_postgres_and_with_other_batches(tmp_path: Path, run_dir: Path, postgres_url: str) -> None:
    other = {"store__database_url": postgres_url, "sampling__batch_size": 100, "assess__batch_size": 2}
    start(small_settings(tmp_path / "base", **VALUES, **other), tmp_path / "run")
    manifests = [
        [row["manifest_sha256"] for row in result(path, **store)["rounds"]]
        for path, store in ((run_dir, {}), (tmp_path / "run", {"database_url": postgres_url}))
    ]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("control", ["shuffled", "other-image"])
def test_controls_change_what_is_said_and_nothing_else(tmp_path: Path, run_dir: Path, control: str) -> None:
    settings = small_settings(tmp_path / "base", **VALUES | {"run__rounds": 1, "curate__assessments": control})
    start(settings, tmp_path / "run")
    told = []
    for path in (run_dir, tmp_path / "run"):
        with open_run(path) as run:
            rows = [row for row in examples_of(run.session, 1) if row.answer is not None]
        told.append({(row.kind, (row.rejected or row.sample).key): row.answer for row in rows if row.sample})
    own, other = told
    assert other.keys() <= own.keys()
    assert sum(own[key] != other[key] for key in other) > len(other) / 2


def test_without_an_assessment_to_learn_the_round_fails_and_says_what_there_was(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "base", **VALUES)
    impossible = settings.model_copy(
        update={
            "curate": settings.curate.model_copy(update={"keep_per_prompt": 3, "drop_lowest": 0.0}),
            "assess": settings.assess.model_copy(update={"critiques": False}),
        }
    )
    with pytest.raises(RoundFailedError, match=r"no assessment .*\(\d\d samples without a critique, 0 whose"):
        start(impossible, tmp_path / "run")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"assess__critiques": False}, "needs assess.critiques"),
        ({"assess__assessor": "checker", "assess__also_frozen": True}, "writes"),
    ],
)
def test_assessments_need_a_judge_that_writes(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        small_settings(tmp_path / "base", **VALUES | values)
