"""Who judges makes no difference to who does the work: calibration, drift and a teacher, with workers as inline."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from illume_db.sessions import transaction
from illume_db.teacher import num_teacher_calls
from illume_loop.loop.context import calibration_in
from illume_loop.loop.run_directory import open_run
from illume_loop.loop.stages import calibrate
from tests.integration.service.test_finish import comparable
from tests.support.canned_run import result, small_settings, start
from tests.support.held_model import save_held
from tests.support.service import Service
from tests.support.stub_teacher import knows, stub_teacher, writes


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _inline(service: Service, **values: object) -> dict[str, Any]:
    """What one process makes of the service's run; its directory is `inline`."""
    changed = {name.replace(".", "__"): value for name, value in (service.settings | values).items()}
    start(small_settings(save_held(service.folder / "base", 0.4), **changed), service.folder / "inline")
    return result(service.folder / "inline")


def _judged(run_dir: Path, **stores: str) -> tuple[Any, list[Any]]:
    """A run's calibration, and each round's drift."""
    with open_run(run_dir, **stores) as run:
        found = calibration_in(run.session, run.run_id)
    return found, [row["judge_drift"] for row in result(run_dir, **stores)["rounds"]]


def test_workers_calibrate_and_measure_drift_as_one_process_does(
    one_round: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker that draws the labelled set is lost in the middle, and another one draws the same."""
    monkeypatch.setattr(calibrate, "AUTO_PROMPTS", 40)
    one_round.variables["FEW_LABELS"] = "40"
    one_round.settings |= {
        "assess.calibration": "auto",
        "assess.reading": "combined",
        "assess.abstain_band": 0.02,
        "gate.drift_margin": 3.0,
    }
    expected = _inline(one_round)
    hold = tmp_path / "hold"
    hold.touch()
    lost = one_round.worker("assessor", name="lost", HOLD_DRAWING=str(hold))
    one_round.worker("generator", "trainer", name="both")
    coordinator = one_round.coordinator()
    unit = one_round.held(kind="evaluate")
    assert unit.key == "evaluate/calibration"
    # Its fit has no items, and on a busy host is longer than the leases of these tests.
    one_round.worker("assessor", name="assessor", ILLUME_CLUSTER__LEASE_S="30")
    one_round.held("pending")  # nothing is drawn before
    lost.send_signal(signal.SIGKILL)
    assert one_round.ended(coordinator, 200) == 0, one_round.logs()
    assert comparable(one_round.result()) == comparable(expected)
    stores = {"database_url": one_round.database_url, "artifacts_url": one_round.artifacts_url}
    calibration, drifts = _judged(one_round.run_dir, **stores)
    assert calibration.source.num_samples == 160
    assert (calibration, drifts) == _judged(tmp_path / "inline")
    assert drifts[0]["n"] == 18


def test_workers_ask_the_teacher_as_one_process_does_and_a_raised_budget_reaches_them(one_round: Service) -> None:
    """One budget for all workers, each with its own key; they need not be started again."""
    with stub_teacher(knows) as stub:
        one_round.settings |= {"assess.assessor": "teacher", "teacher.url": stub.url, "teacher.model": "seer"}
        expected = _inline(one_round)
        calls = len(stub.requests)
        for name in ("first", "second"):
            key = {"ILLUME_TEACHER__KEY": f"sk-{name}"}
            one_round.worker("generator", "assessor", "trainer", name=name, **key)
        few = one_round.coordinator("few", ILLUME_TEACHER__MAX_CALLS="10")
        assert one_round.ended(few) == 1
        assert "The budget of 10 calls to the teacher is spent" in one_round.log("few")
        assert len(stub.requests) == calls + 10
        more = one_round.coordinator("more", ILLUME_TEACHER__MAX_CALLS="10000", ILLUME_RUN__ROUNDS="2")
        assert one_round.ended(more) == 0, one_round.logs()
        rounds = one_round.result()["rounds"]
        assert [row["state"] for row in rounds] == ["failed", "promoted"]
        assert rounds[1]["judge_auc"] == expected["rounds"][0]["judge_auc"] == 1.0
        with one_round.engine() as engine, transaction(engine) as session:
            assert num_teacher_calls(session, 1) == len(stub.requests) - calls
        keys = {headers.get("Authorization") for _, headers, _ in stub.requests[calls:]}
        assert keys <= {"Bearer sk-first", "Bearer sk-second"}
        assert "sk-" not in one_round.logs()


def test_workers_have_the_teacher_write_as_one_process_does(one_round: Service) -> None:
    """Two workers assess, and the rows that are learned are those of one process, for as many calls."""
    with stub_teacher(writes) as stub:
        one_round.settings |= {
            "assess.critiques": True,
            "assess.critiques_by": "teacher",
            "curate.assessment_rows": 12,
            "train.objective": "assess-sft",
            "teacher.url": stub.url,
            "teacher.model": "seer",
        }
        expected = _inline(one_round)
        calls = len(stub.requests)
        for name in ("first", "second"):
            one_round.worker("generator", "assessor", "trainer", name=name)
        coordinator = one_round.coordinator()
        assert one_round.ended(coordinator, 200) == 0, one_round.logs()
        assert comparable(one_round.result()) == comparable(expected)
        assert len(stub.requests) == 2 * calls
        with one_round.engine() as engine, transaction(engine) as session:
            assert num_teacher_calls(session, 1) == calls
