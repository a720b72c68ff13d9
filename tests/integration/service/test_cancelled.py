"""Rounds of a service are cancelled and run again while workers hold their units, by the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import func, select

from illume_db.tables import Round, Sample, TrainingCheckpoint, Unit
from tests.support.service import PATIENT, Service


@pytest.mark.parametrize(("variable", "kind"), [("HOLD_DRAWING", "sample"), ("HOLD_TRAINING", "train")])
def test_a_worker_drops_the_unit_of_a_cancelled_round(one_round: Service, hold: Path, variable: str, kind: str) -> None:
    held = {variable: str(hold), **PATIENT}
    one_round.worker("generator", "assessor", "trainer", name="worker", **held)
    coordinator = one_round.coordinator()
    unit = one_round.held(kind=kind)
    ended = one_round.command("rounds", "cancel", "1", "--reason", "enough", "--json", "--run-dir", one_round.run_dir)
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["round"], told["state"], told["units_dropped"]) == (1, "cancelled", 1)
    assert one_round.ended(coordinator) == 0, one_round.logs()
    hold.unlink()
    one_round.wait_for(lambda _: f"Round 1 was cancelled, so the unit {unit.key}" in one_round.log("worker"), "it")
    with one_round.engine() as engine, engine.connect() as connection:
        assert connection.scalar(select(func.count()).where(Unit.state == "leased")) == 0
        assert connection.scalar(select(Round.state)) == "cancelled"
        assert connection.scalar(select(Round.candidate_version_id)) is None
        assert connection.scalar(select(func.count(Sample.id))) == (18 if kind == "train" else 0)
        assert connection.scalar(select(func.count()).where(TrainingCheckpoint.state != "dropped")) == 0
    assert one_round.command("rounds", "cancel", "1", "--run-dir", one_round.run_dir).code == 4

    assert one_round.command("rounds", "retry", "1", "--run-dir", one_round.run_dir).code == 0
    assert one_round.ended(one_round.coordinator()) == 0, one_round.logs()
    rows = one_round.result()["rounds"]
    assert [(row["state"], row["retry_of"]) for row in rows] == [("cancelled", None), ("promoted", 1)]


def test_a_service_that_runs_goes_on_with_the_next_round_and_then_with_the_one_to_repeat(
    service: Service, hold: Path
) -> None:
    held = {"HOLD_TRAINING": str(hold), **PATIENT}
    service.worker("generator", "assessor", "trainer", name="worker", **held)
    coordinator = service.coordinator()
    service.held(kind="train")
    for words in (("cancel", "1"), ("retry", "1")):
        assert service.command("rounds", *words, "--run-dir", service.run_dir).code == 0
    hold.unlink()
    assert service.ended(coordinator) == 0, service.logs()
    rows = service.result()["rounds"]
    # Which comes first depends on whether the coordinator plans the next round before the second command.
    assert sorted(row["retry_of"] or 0 for row in rows) == [0, 0, 1]
    assert [row["state"] for row in rows] == ["cancelled", "promoted", "promoted"]
    assert "AssertionError" not in service.logs()
