"""Reviews of a run of the canned backend: kept, listed, replaced on demand only, and learned from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from illume_db.samples import samples_page
from illume_db.tables import Assessment
from illume_loop.cli import judge, reviews
from illume_loop.errors import NotFoundError, ReviewExistsError, TooFewLabelsError, UsageError
from illume_loop.judge.calibration import read_calibration
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import small_settings, start, table
from tests.support.plugged import PLUGIN

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(PLUGIN)
    start(small_settings(tmp_path / "base", run__rounds=1, sampling__prompts_per_round=24), tmp_path / "run")
    return tmp_path / "run"


def _listed(run_dir: Path, capsys: Captured) -> list[dict[str, object]]:
    capsys.readouterr()
    reviews.ls(run_dir, as_json=True)
    rows: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return rows


def test_a_review_is_kept_with_its_criteria_and_its_comment(run_dir: Path, capsys: Captured) -> None:
    reviews.add(3, agrees=False, criterion=["object=agree"], comment=" too small ", run_dir=run_dir)
    reviews.add(1, agrees=True, run_dir=run_dir)
    first, third = _listed(run_dir, capsys)
    assert (first["sample"], first["agrees"], first["criteria"], first["comment"]) == (1, True, {}, "")
    assert (third["sample"], third["agrees"]) == (3, False)
    assert (third["criteria"], third["comment"]) == ({"object": True}, "too small")
    reviews.ls(run_dir)
    out = capsys.readouterr().out
    assert "too small" in out
    assert "object agrees" in out
    with open_run(run_dir) as run:
        query = select(Assessment).where(Assessment.assessor == "human").order_by(Assessment.sample_id)
        told = [(row.sample_id, row.state, row.score) for row in run.session.scalars(query)]
    assert told == [(1, "ok", 1.0), (3, "ok", 0.0)]


def test_a_second_review_has_to_be_asked_for(run_dir: Path, capsys: Captured) -> None:
    reviews.add(1, agrees=True, comment="first", run_dir=run_dir)
    with pytest.raises(ReviewExistsError, match="--replace"):
        reviews.add(1, agrees=False, run_dir=run_dir)
    assert [row["comment"] for row in _listed(run_dir, capsys)] == ["first"]
    reviews.add(1, agrees=False, comment="second", replace=True, run_dir=run_dir)
    assert [(row["agrees"], row["comment"]) for row in _listed(run_dir, capsys)] == [(False, "second")]


def test_what_makes_no_sense_is_refused_and_changes_nothing(run_dir: Path, capsys: Captured) -> None:
    with pytest.raises(NotFoundError, match="sample '999999'"):
        reviews.add(999_999, agrees=True, run_dir=run_dir)
    with pytest.raises(UsageError, match="does not ask about 'mood'"):
        reviews.add(1, agrees=False, criterion=["mood=agree"], run_dir=run_dir)
    assert _listed(run_dir, capsys) == []
    with pytest.raises(TooFewLabelsError, match="has no reviews"):
        judge.fit(run_dir / "c.json", labels=judge.Labels.HUMAN, run_dir=run_dir)


def test_reviews_change_nothing_of_the_run_and_the_judge_learns_from_them(run_dir: Path, tmp_path: Path) -> None:
    before = table(run_dir)
    with open_run(run_dir) as run:
        samples = samples_page(run.session, run.run_id, limit=1000)
    for sample in samples:
        reviews.add(sample["id"], agrees=sample["passed"], run_dir=run_dir)
    assert table(run_dir) == before
    judge.fit(tmp_path / "c.json", labels=judge.Labels.HUMAN, run_dir=run_dir)
    calibration = read_calibration(tmp_path / "c.json")
    with open_run(run_dir) as run:
        _, path = run.checkpoint("v0001")
    assert (calibration.source.labels, calibration.source.judge) == ("human", path.name)
    assert calibration.source.num_samples == len(samples) == 72
    assert calibration.overall.reliability.auc == 1.0
    start(
        small_settings(tmp_path / "base", run__rounds=1, assess__calibration=str(tmp_path / "c.json")),
        tmp_path / "next",
    )
