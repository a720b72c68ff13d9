"""Runs by every judge: whose scores count, what is recorded beside them, and judges that are broken."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from illume_db.tables import Assessment, Event, Example, ModelVersion
from illume_loop.errors import RoundFailedError
from illume_loop.loop.context import Toolbox
from illume_loop.loop.run_directory import open_run
from illume_loop.protocols import Scores
from illume_loop.settings import Settings
from tests.support.canned_model import CannedModel, canned_toolbox, load_canned
from tests.support.canned_run import small_settings, start, table

TOOLS = canned_toolbox()


def _settings(tmp_path: Path, **values: object) -> Settings:
    return small_settings(tmp_path / "base", **values)


def _tools(kind: type[CannedModel]) -> Toolbox:
    return replace(TOOLS, load_model=lambda path, device: kind(load_canned(path, device).skill))


def _assessments(run_dir: Path, assessor: str) -> list[Assessment]:
    with open_run(run_dir) as run:
        query = select(Assessment).where(Assessment.assessor == assessor).order_by(Assessment.sample_id)
        found = list(run.session.scalars(query))
        run.session.expunge_all()
        return found


def _versions(run_dir: Path) -> dict[int, int]:
    with open_run(run_dir) as run:
        return {version.id: version.number for version in run.session.scalars(select(ModelVersion))}


@pytest.mark.parametrize("reading", ["pointwise-information", "yes-no", "yes-no-minimum", "written-score"])
def test_a_run_improves_by_any_reading(tmp_path: Path, reading: str) -> None:
    start(_settings(tmp_path, assess__reading=reading, run__rounds=1), tmp_path / "run")
    (row,) = table(tmp_path / "run")
    assert (row["state"], row["judge_auc"]) == ("promoted", 1.0), "the canned model knows what it sees"
    for one in _assessments(tmp_path / "run", "self"):
        assert (one.state, one.score) == ("ok", one.details["readings"][reading])


def test_the_frozen_judge_is_the_base_in_every_round(tmp_path: Path) -> None:
    start(_settings(tmp_path, assess__assessor="frozen", assess__reading="yes-no"), tmp_path / "run")
    assert [row["judge_auc"] for row in table(tmp_path / "run")] == [1.0, 1.0]
    versions = _versions(tmp_path / "run")
    frozen = _assessments(tmp_path / "run", "frozen")
    assert len(frozen) == 36
    assert {versions[one.model_version_id or 0] for one in frozen} == {1}
    assert _assessments(tmp_path / "run", "self") == []


def test_a_second_judge_is_recorded_and_changes_nothing(tmp_path: Path) -> None:
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    start(_settings(tmp_path, assess__reading="yes-no"), alone)
    start(_settings(tmp_path, assess__reading="yes-no", assess__also_frozen=True), beside)
    assert [row["manifest_sha256"] for row in table(alone)] == [row["manifest_sha256"] for row in table(beside)]
    own, frozen = (_assessments(beside, assessor) for assessor in ("self", "frozen"))
    assert [one.sample_id for one in own] == [one.sample_id for one in frozen]
    versions = _versions(beside)
    assert {versions[one.model_version_id or 0] for one in frozen} == {1}
    assert {versions[one.model_version_id or 0] for one in own} == {1, 2}
    assert _assessments(alone, "frozen") == []


def test_critiques_are_kept_beside_the_scores_and_change_none(tmp_path: Path) -> None:
    plain, written = tmp_path / "plain", tmp_path / "written"
    start(_settings(tmp_path), plain)
    start(_settings(tmp_path, assess__critiques=True), written)
    assert [row["manifest_sha256"] for row in table(plain)] == [row["manifest_sha256"] for row in table(written)]
    for one in _assessments(written, "self"):
        assert one.critique is not None
        assert {name for name, told in one.critique.items() if name != "analysis" and told["verdict"] == "no"} == {
            *one.failed_criteria
        }
    assert all(one.critique is None for one in _assessments(plain, "self"))


class Half(CannedModel):
    """Gives no number for about a third of the images, whoever asks: which ones follows from the image."""

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        log_odds = super().yes_no_log_odds(images, questions)
        return [
            np.full(len(values), math.nan) if random.Random(image.tobytes()).random() < 0.3 else values
            for image, values in zip(images, log_odds, strict=True)
        ]


def test_a_judge_that_fails_on_some_images_is_contained_and_named(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    settings = _settings(tmp_path, assess__reading="yes-no", sampling__prompts_per_round=24, run__rounds=1)
    start(settings, run_dir, _tools(Half))
    failed = [one for one in _assessments(run_dir, "self") if one.state == "failed"]
    assert 0.2 < len(failed) / 72 < 0.4
    assert {(one.score, one.error) for one in failed} == {(None, "the model's score was nan")}
    with open_run(run_dir) as run:
        accepted = set(run.session.scalars(select(Example.sample_id).where(Example.sample_id.is_not(None))))
        (told,) = run.session.scalars(select(Event.message).where(Event.kind == "judged"))
    assert accepted
    assert accepted.isdisjoint(one.sample_id for one in failed)
    (row,) = table(run_dir)
    assert (row["state"], row["curation"]["judge_failed"]) == ("promoted", len(failed))
    expected = f"the judge 'self' could not score {len(failed)} of 72 samples (the model's score was nan)"
    assert told == f"round 1: {expected}"


class Fickle(CannedModel):
    """Three calls of ten end in an error."""

    calls = 0

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        Fickle.calls += 1
        if Fickle.calls % 10 in (2, 5, 6):
            raise RuntimeError("the judge lost its glasses")
        return super().yes_no_log_odds(images, questions)


def test_a_judge_whose_calls_fail_is_asked_again(tmp_path: Path) -> None:
    settings = _settings(tmp_path, assess__reading="yes-no", sampling__prompts_per_round=24)
    start(settings, tmp_path / "fickle", _tools(Fickle))
    start(settings, tmp_path / "steady")
    assert Fickle.calls > 30
    fickle, steady = (table(tmp_path / name) for name in ("fickle", "steady"))
    assert [row["manifest_sha256"] for row in fickle] == [row["manifest_sha256"] for row in steady]
    assert [row["dead_units"] for row in fickle] == [0, 0]


class Speechless(CannedModel):
    """Asks no list of questions."""

    def instruct(self, images: Any, instructions: Sequence[str], **more: Any) -> list[str]:
        return ["is there a circle ?"] * len(instructions)


def test_a_judge_without_questions_is_asked_about_the_whole_prompt(tmp_path: Path) -> None:
    settings = _settings(tmp_path, assess__reading="yes-no", assess__questions="self", assess__retries=1, run__rounds=1)
    start(settings, tmp_path / "run", _tools(Speechless))
    (row,) = table(tmp_path / "run")
    assert (row["state"], row["judge_auc"]) == ("promoted", 1.0)
    details = [one.details for one in _assessments(tmp_path / "run", "self")]
    assert [[asked["criterion"] for asked in one["questions"]] for one in details] == [["whole"]] * 18
    assert {one["invalid_questions"] for one in details} == {2}


class Agreeable(CannedModel):
    """Says yes to whatever it is asked, now more and now less firmly."""

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        noise = np.random.default_rng(len(images))
        return [8.0 + noise.normal(size=len(asked)) for asked in questions]


class Yes(CannedModel):
    """Says yes."""

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        return [np.full(len(asked), 8.0) for asked in questions]


@pytest.mark.parametrize("kind", [Yes, Agreeable])
def test_a_judge_that_always_says_yes_is_refused(tmp_path: Path, kind: type[CannedModel]) -> None:
    settings = _settings(
        tmp_path, assess__reading="yes-no", sampling__prompts_per_round=36, sampling__samples_per_prompt=2
    )
    refused = (
        r"Round 1 failed: the judge 'self' says yes to the questions of other prompts as readily .* over 36 images"
    )
    with pytest.raises(RoundFailedError, match=refused):
        start(settings, tmp_path / "run", _tools(kind))
    (row,) = table(tmp_path / "run")
    assert (row["state"], row["accepted"], row["manifest_sha256"]) == ("failed", 0, None)


def test_a_judge_that_is_only_lenient_is_not_refused(tmp_path: Path) -> None:
    class Lenient(CannedModel):
        def yes_no_log_odds(self, images: Any, questions: Any) -> list[Scores]:
            log_odds = super().yes_no_log_odds(images, questions)
            return [values + 7.0 for values in log_odds]

    settings = _settings(
        tmp_path,
        assess__reading="yes-no",
        sampling__prompts_per_round=36,
        sampling__samples_per_prompt=2,
        run__rounds=1,
    )
    start(settings, tmp_path / "run", _tools(Lenient))
    (row,) = table(tmp_path / "run")
    assert row["state"] == "promoted"
    asked = [one.details["control"] for one in _assessments(tmp_path / "run", "self") if "control" in one.details]
    assert len(asked) == 36
    assert min(asked) > 0.0, "it says yes to foreign questions too"


def test_the_calibrated_combination_judges_and_abstains_where_it_is_not_sure(tmp_path: Path) -> None:
    settings = _settings(
        tmp_path,
        assess__reading="combined",
        assess__calibration="auto",
        assess__abstain_band=0.49,
        sampling__prompts_per_round=24,
        run__rounds=1,
    )
    start(settings, tmp_path / "run")
    (row,) = table(tmp_path / "run")
    assert row["judge_auc"] == 1.0
    judged = _assessments(tmp_path / "run", "self")
    for one in judged:
        assert one.probability is not None
        assert (one.state == "abstained") == (abs(one.probability - 0.5) < 0.49)
        if one.score is not None:
            assert one.probability == pytest.approx(1 / (1 + math.exp(-one.score)))
    assert row["curation"]["judge_abstained"] == sum(one.state == "abstained" for one in judged)
