"""Trackers write where the run is, by name, and change nothing else of the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from illume_loop.errors import UsageError
from illume_loop.protocols import LikelyRow
from illume_loop.settings import TrainSettings
from illume_loop.train import trackers
from illume_loop.train.sft import train_sft
from illume_loop.train.trackers import check_tracker, track_update, tracked, tracker_of, training_name
from illume_loop.train.trainings import CandidateTraining


def test_a_training_is_told_where_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_DIR", "/elsewhere")
    before = dict(os.environ)
    with tracked("tensorboard", tmp_path / "t", "round-3"):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tmp_path / "t" / "round-3")
        assert os.environ["MLFLOW_TRACKING_URI"].endswith(f"{tmp_path}/t/mlflow.db")
        assert os.environ["WANDB_DIR"] == "/elsewhere", "who set a variable meant it"
        assert (tmp_path / "t").is_dir(), "W&B and MLflow want it to be there"
        assert (os.environ["WANDB_PROJECT"], os.environ["WANDB_RUN_GROUP"]) == ("illume-loop", "t")
        assert training_name() == "round-3"
    assert dict(os.environ) == before
    with tracked("none", tmp_path / "none", "round-3"):
        assert dict(os.environ) == before
    assert not (tmp_path / "none").exists()
    with pytest.raises(UsageError, match="needs the package wandb"), tracked("wandb", tmp_path / "none", "round-3"):
        pass


def test_auto_is_tensorboard_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert tracker_of("auto") == "tensorboard"
    assert (tracker_of("none"), tracker_of("wandb")) == (None, "wandb")
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert tracker_of("auto") is None
    for setting in ("auto", "none"):
        check_tracker(setting)
    with pytest.raises(UsageError, match="needs the package mlflow"):
        check_tracker("mlflow")


def test_tensorboard_hears_of_each_step_and_changes_none(
    base: Path, likely_rows: list[LikelyRow], tmp_path: Path
) -> None:
    weights = {}
    for report_to in ("none", "tensorboard"):
        settings = TrainSettings(batch_size=4, report_to=report_to)
        with tracked(report_to, tmp_path / "trackers", report_to):
            report = train_sft(CandidateTraining(base, likely_rows, tmp_path / report_to, settings, 5), lambda *_: None)
        weights[report_to] = (tmp_path / report_to / "model.safetensors").read_bytes()
    assert weights["none"] == weights["tensorboard"]
    assert [path.name for path in (tmp_path / "trackers").iterdir()] == ["tensorboard"]
    [events] = (tmp_path / "trackers" / "tensorboard").iterdir()
    assert events.read_bytes().count(b"train/loss") == report.steps
    assert {path.name for path in tmp_path.iterdir()} == {"none", "tensorboard", "trackers"}


def test_tensorboard_hears_of_each_update(tmp_path: Path) -> None:
    before = dict(os.environ)
    for step, picture in ((1, Image.new("RGB", (8, 8))), (2, None), (3, None)):
        track_update("tensorboard", tmp_path, "round-1-updates", step, {"entropy": 0.5}, picture)
    assert dict(os.environ) == before
    events = b"".join(path.read_bytes() for path in (tmp_path / "round-1-updates").iterdir())
    assert (events.count(b"entropy"), events.count(b"samples"), events.count(b"PNG")) == (3, 1, 1)
    track_update("none", tmp_path / "none", "round-1-updates", 1, {"entropy": 0.5}, None)
    assert not (tmp_path / "none").exists()
