"""A run with a calibration: fixed at its start, kept to its end, and a candidate that drifted as a judge is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import create_engine, text

from illume_db.sessions import open_engine
from illume_loop.cli import judge
from illume_loop.errors import (
    CalibrationFileError,
    CorruptArtifactError,
    RoundFailedError,
    SettingsError,
    WrongCalibrationError,
)
from illume_loop.judge.calibration import Calibration, read_calibration
from illume_loop.loop.context import Toolbox, calibration_in
from illume_loop.loop.run_directory import open_run
from illume_loop.loop.stages import calibrate
from illume_loop.protocols import Scores
from illume_loop.settings import Settings, load_settings
from illume_workers.contexts import RunContexts
from tests.support.canned_model import CannedModel, canned_toolbox, load_canned, save_canned
from tests.support.canned_run import small_settings, start, table
from tests.support.plugged import PLUGIN

TOOLS = canned_toolbox()
BASE_SKILL = 0.4


@pytest.fixture(autouse=True)
def _few_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for a canned judge, whose answers are clear."""
    monkeypatch.setattr(calibrate, "AUTO_PROMPTS", 40)


class Mild(CannedModel):
    """Draws better than the base, tells captions apart as it does, and takes most images for right."""

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        return [np.abs(scores) for scores in super().yes_no_log_odds(images, questions)]


class Contrary(CannedModel):
    """Draws better than the base, and takes right images for wrong ones and the other way round."""

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        return 2.5 - super().log_likelihood(images, texts)

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        return [-scores for scores in super().yes_no_log_odds(images, questions)]


class Blank(CannedModel):
    """Draws better than the base; what it answers is no number."""

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        return [np.full(len(of_image), np.nan) for of_image in questions]


def _candidates_are(kind: type[CannedModel]) -> Toolbox:
    def load(path: Path, device: str) -> CannedModel:
        model = load_canned(path, device)
        return model if model.skill == BASE_SKILL else kind(1.0)

    return replace(TOOLS, load_model=load)


def _settings(tmp_path: Path, calibration: object = "auto", **values: object) -> Settings:
    asked = {"run__rounds": 1, "assess__calibration": str(calibration), "gate__drift_margin": 1.0, **values}
    return small_settings(tmp_path / "base", **asked)


def _calibration(run_dir: Path) -> Calibration | None:
    with open_run(run_dir) as run:
        return calibration_in(run.session, run.run_id)


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        (CannedModel, []),
        (Mild, ["its judgement drifted by +"]),
        (Blank, ["it could not judge 18 samples that the frozen judge could"]),
    ],
)
def test_a_candidate_that_drifted_as_a_judge_is_refused(
    tmp_path: Path, kind: type[CannedModel], reasons: list[str]
) -> None:
    start(_settings(tmp_path), tmp_path / "run", _candidates_are(kind))
    (row,) = table(tmp_path / "run")
    assert row["decision"] == ("rejected" if reasons else "promoted")
    for found, begins in zip(row["reasons"][1:], reasons, strict=True):
        assert found.startswith(begins)
    assert row["judge_drift"]["n"] + row["judge_drift"]["num_failed"] == 18


def test_a_contrary_judge_is_refused_for_disagreement(tmp_path: Path) -> None:
    """Its shift may be within the margin, whatever the margin is; its AUC is not."""
    start(_settings(tmp_path, gate__understanding_margin=1.0), tmp_path / "run", _candidates_are(Contrary))
    (row,) = table(tmp_path / "run")
    assert row["decision"] == "rejected"
    assert row["judge_drift"]["auc"] < 0.2
    assert any("agrees with the frozen judge's by an AUC of 0." in reason for reason in row["reasons"])


def test_the_calibration_is_fixed_at_the_start_and_the_manifest_is_that_of_a_run_without(tmp_path: Path) -> None:
    start(_settings(tmp_path), tmp_path / "run")
    first = _calibration(tmp_path / "run")
    assert first is not None
    assert first.source.labels == "checker"
    start(_settings(tmp_path, run__rounds=2), tmp_path / "run")
    assert _calibration(tmp_path / "run") == first
    start(_settings(tmp_path, run__rounds=2), tmp_path / "again")
    assert _calibration(tmp_path / "again") == first, "it follows from the settings and the base"
    start(small_settings(tmp_path / "base", run__rounds=2), tmp_path / "plain")
    rows, plain = table(tmp_path / "run"), table(tmp_path / "plain")
    assert [row["manifest_sha256"] for row in rows] == [row["manifest_sha256"] for row in plain]
    assert [row["judge_drift"] for row in plain] == [None, None]
    assert _calibration(tmp_path / "plain") is None


def test_a_start_that_ended_before_the_calibration_was_stored_is_made_good(tmp_path: Path) -> None:
    def load(path: Path, device: str) -> CannedModel:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(_settings(tmp_path), tmp_path / "run", replace(TOOLS, load_model=load))
    assert _calibration(tmp_path / "run") is None
    start(_settings(tmp_path), tmp_path / "run")
    start(_settings(tmp_path), tmp_path / "whole")
    assert _calibration(tmp_path / "run") == _calibration(tmp_path / "whole")
    rows = table(tmp_path / "run"), table(tmp_path / "whole")
    assert rows[0][0]["manifest_sha256"] == rows[1][0]["manifest_sha256"]


def test_a_base_that_draws_nothing_right_cannot_be_calibrated_and_the_round_says_so(tmp_path: Path) -> None:
    settings = small_settings(save_canned(tmp_path / "base", 0.0), assess__calibration="auto")
    with pytest.raises(RoundFailedError, match=r"unit evaluate/calibration failed 1 times .* 0 right and 160 wrong"):
        start(settings, tmp_path / "run", rounds=1)
    (row,) = table(tmp_path / "run")
    assert (row["samples"], row["seconds"]) == (0, {}), "nothing was drawn for nothing"


def test_how_far_a_calibration_is_is_told_and_the_gate_begins_anew(tmp_path: Path) -> None:
    _, heard = start(_settings(tmp_path, sampling__batch_size=64, assess__batch_size=96), tmp_path / "run")
    stages = list(dict.fromkeys(event.stage for event in heard.stages))
    assert stages == ["calibrating", "sampling", "assessing", "training", "gating"]
    told = [(event.done, event.total) for event in heard.stages if event.stage == "calibrating"]
    assert told == [(64, 320), (128, 320), (160, 320), (256, 320), (320, 320)], "drawn, then read, in batches"
    gating = [(event.done, event.total) for event in heard.stages if event.stage == "gating"]
    assert gating[-1] == (gating[0][1],) * 2
    assert gating[0][0] < gating[0][1] / 2


def test_a_worker_judges_by_the_runs_calibration(tmp_path: Path) -> None:
    """Whatever is on its own disk."""
    start(_settings(tmp_path), tmp_path / "run")
    own = load_settings(overrides={"store.artifacts_url": str(tmp_path / "run")}, environ={})
    engine = open_engine(f"sqlite:///{tmp_path / 'run' / 'loop.sqlite'}")
    places = {"cache": tmp_path / "cache", "scratch": tmp_path / "scratch"}
    context = RunContexts(engine, own, TOOLS, device="cpu", on_load=lambda _: None, **places).of_run(1)
    assert context.calibration is not None
    assert context.calibration == _calibration(tmp_path / "run")
    engine.dispose()


def test_a_file_is_kept_in_the_run_whatever_becomes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "calibration.json"
    judge.fit(file, model=str(save_canned(tmp_path / "base", BASE_SKILL)), prompts=60, samples=3)
    calibration = read_calibration(file)
    start(_settings(tmp_path, file), tmp_path / "run")
    file.unlink()
    start(_settings(tmp_path, file, run__rounds=2), tmp_path / "run")
    assert _calibration(tmp_path / "run") == calibration
    assert len(table(tmp_path / "run")) == 2
    capsys.readouterr()
    judge.show(None, run_dir=tmp_path / "run", as_json=True)
    assert json.loads(capsys.readouterr().out)["sha256"] == calibration.sha256


def test_a_calibration_that_cannot_be_used_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "other.json"
    judge.fit(file, model=str(save_canned(tmp_path / "other", 0.6)), prompts=60, samples=3)
    with pytest.raises(WrongCalibrationError, match="is of the judge"):
        start(_settings(tmp_path, file), tmp_path / "run")
    with pytest.raises(CalibrationFileError, match=r"absent\.json"):
        start(_settings(tmp_path, "absent.json"), tmp_path / "run")
    with pytest.raises(SettingsError, match=r"needs assess\.calibration"):
        load_settings(overrides={"gate.drift_margin": 0.5}, environ={})
    assert not (tmp_path / "run").exists()


def test_a_calibration_that_was_tampered_with_is_noticed(tmp_path: Path) -> None:
    start(_settings(tmp_path), tmp_path / "run")
    engine = create_engine(f"sqlite:///{tmp_path / 'run' / 'loop.sqlite'}")
    with engine.begin() as connection:
        connection.execute(text("DROP TRIGGER calibrations_are_immutable"))
        content = json.loads(connection.execute(text("SELECT content FROM calibrations")).scalar_one())
        content["overall"]["logistic"]["intercept"] += 1
        connection.execute(text("UPDATE calibrations SET content = :content"), {"content": json.dumps(content)})
    engine.dispose()
    with pytest.raises(CorruptArtifactError, match="calibration of run 1"):
        start(_settings(tmp_path, run__rounds=2), tmp_path / "run")
