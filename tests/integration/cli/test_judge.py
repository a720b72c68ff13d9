"""`judge fit` and `judge show` on the canned backend: the same numbers shown again, refusals in a sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.cli import judge
from illume_loop.errors import CalibrationFileError, NoTeacherError, TeacherRefusedError, UsageError
from illume_loop.judge.calibration import read_calibration
from tests.support.canned_model import save_canned
from tests.support.plugged import PLUGIN
from tests.support.stub_teacher import Status, stub_teacher

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(PLUGIN)
    monkeypatch.chdir(tmp_path)
    return str(save_canned(tmp_path / "base", 0.5))


def _fit(base: str, out: Path, **more: Any) -> None:
    judge.fit(out, model=base, **{"prompts": 60, "samples": 3} | more)


def test_a_fit_is_shown_as_it_was_made(base: str, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "calibration.json"
    _fit(base, out, as_json=True, plot=tmp_path / "first.svg")
    made = capsys.readouterr()
    judge.show(out, as_json=True, plot=tmp_path / "again.svg")
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(made.out)
    assert shown["sha256"] == read_calibration(out).sha256
    assert shown["source"]["judge"] == checkpoint_sha256(Path(base))
    assert (shown["source"]["num_samples"], shown["source"]["labels"]) == (180, "checker")
    assert shown["overall"]["reliability"]["auc"] == 1.0
    assert f"next: ILLUME_ASSESS__CALIBRATION={out} illume-loop start" in made.err
    for name in ("first.svg", "again.svg"):
        assert "AUC 1.000" in (tmp_path / name).read_text()
    _fit(base, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == out.read_bytes(), "the same command makes the same file"


def test_the_table_has_a_line_for_each_criterion(base: str, tmp_path: Path, capsys: Captured) -> None:
    _fit(base, tmp_path / "c.json")
    out = capsys.readouterr().out
    for what in ("whole answer", "object", "count", "color", "attribute", "position"):
        assert what in out
    assert "yes-no-minimum" in out


def test_a_teacher_labels_within_its_budget(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with stub_teacher(lambda number, *_: "yes" if number % 9 else "no") as stub:
        monkeypatch.setenv("ILLUME_TEACHER__URL", stub.url)
        monkeypatch.setenv("ILLUME_TEACHER__MODEL", "seer")
        monkeypatch.setenv("ILLUME_TEACHER__KEY", "sk-hidden")
        _fit(base, tmp_path / "c.json", labels=judge.Labels.TEACHER, prompts=30, samples=2)
    calibration = read_calibration(tmp_path / "c.json")
    assert calibration.source.labels == "teacher"
    assert calibration.source.num_samples == 60
    assert "sk-hidden" not in (tmp_path / "c.json").read_text()


def test_a_refusal_leaves_no_file(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "c.json"
    with pytest.raises(NoTeacherError, match=r"teacher\.url"):
        _fit(base, out, labels=judge.Labels.TEACHER)
    with pytest.raises(UsageError, match="99999 were asked for"):
        _fit(base, out, prompts=99_999)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with stub_teacher(lambda *_: Status(401)) as stub:
        monkeypatch.setenv("ILLUME_TEACHER__URL", stub.url)
        monkeypatch.setenv("ILLUME_TEACHER__MODEL", "seer")
        with pytest.raises(TeacherRefusedError, match="HTTP 401"):
            _fit(base, out, labels=judge.Labels.TEACHER, prompts=6, samples=1)
    assert not out.exists()


def test_what_is_no_calibration_is_told(tmp_path: Path) -> None:
    with pytest.raises(CalibrationFileError, match=r"none\.json"):
        judge.show(tmp_path / "none.json")
