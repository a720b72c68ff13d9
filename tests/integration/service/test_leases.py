"""A worker that makes progress keeps its lease, however long its unit takes; one that does not loses it, and can then
spoil nothing of its successor's."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from sqlalchemy import select

from illume_db.clock import db_time_in
from illume_db.tables import TrainingCheckpoint, Unit
from tests.support.service import Service

LEASE_S = 5.0
"""Longer than a busy host takes to import a backend, which reports nothing."""


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("sample", "HOLD_LOADING"),
        ("sample", "HOLD_DRAWING"),
        ("assess", "HOLD_READING"),
        ("train", "HOLD_TRAINING"),
    ],
)
def test_a_busy_worker_keeps_its_lease(one_round: Service, hold: Path, manifest: str, kind: str, where: str) -> None:
    busy = {where: str(hold), "REPORTS": "1", "ILLUME_CLUSTER__LEASE_S": str(LEASE_S)}
    one_round.worker("generator", "assessor", "trainer", name="busy", **busy)
    coordinator = one_round.coordinator()
    unit = one_round.held(kind=kind)
    assert unit.progress_at is not None
    far_beyond = select(Unit).where(Unit.id == unit.id, db_time_in(-2 * LEASE_S) > unit.progress_at)
    later: Unit = one_round.wait_for(lambda session: session.scalar(far_beyond), "twice the lease")
    assert (later.state, later.fencing_token, later.attempts) == ("leased", unit.fencing_token, 0)
    hold.unlink()
    assert one_round.ended(coordinator) == 0, one_round.logs()
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest
    assert {row["attempts"] for row in one_round.shown()["units"]} == {0}


def test_a_worker_that_hangs_while_it_loads_loses_its_lease(one_round: Service, hold: Path) -> None:
    one_round.worker("generator", name="hung", HOLD_LOADING=str(hold), ILLUME_CLUSTER__LEASE_S=str(LEASE_S))
    one_round.coordinator()
    unit = one_round.held()
    lost = select(Unit).where(Unit.id == unit.id, Unit.fencing_token > unit.fencing_token)
    found: Unit = one_round.wait_for(lambda session: session.scalar(lost), "the end of the lease")
    assert "the lease of worker hung ran out" in (found.error or "")


def _checkpoints(service: Service) -> dict[int, str]:
    """The files of the kept checkpoints by step."""
    query = select(TrainingCheckpoint).where(TrainingCheckpoint.state == "kept")
    rows = service.wait_for(lambda session: list(session.scalars(query)), "a kept checkpoint")
    return {row.step: str(Path(row.folder) / "optimizer.pt") for row in rows}


def test_a_trainer_that_lost_its_lease_leaves_its_successors_checkpoints(
    one_round: Service, hold: Path, tmp_path: Path, manifest: str
) -> None:
    second_hold = tmp_path / "second-hold"
    second_hold.touch()
    one_round.worker("generator", "assessor", name="other")
    # It is to be ended by the loss of its lease, not by the time that it was stopped for.
    lost = one_round.worker("trainer", name="lost", HOLD_TRAINING=str(hold), ILLUME_CLUSTER__STALL_AFTER_S="600")
    coordinator = one_round.coordinator()
    unit = one_round.held(kind="train")
    assert list(_checkpoints(one_round)) == [1]
    lost.send_signal(signal.SIGSTOP)
    successor = {"HOLD_TRAINING": str(second_hold), "REPORTS": "1"}
    one_round.worker("trainer", name="successor", **successor)
    one_round.wait_for(
        lambda session: session.scalar(select(TrainingCheckpoint).where(TrainingCheckpoint.step == 2)),
        "the successor's checkpoint",
    )
    hold.unlink()
    lost.send_signal(signal.SIGCONT)
    one_round.wait_for(lambda _: "went to another worker" in one_round.log("lost"), "the end of the stopped worker")
    kept = _checkpoints(one_round)
    assert sorted(kept) == [1, 2], "the successor goes on from the first one and has a second one"
    assert all(Path(file).exists() for file in kept.values())
    second_hold.unlink()
    assert one_round.ended(coordinator) == 0, one_round.logs()
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest
    assert [row["attempts"] for row in one_round.shown()["units"] if row["key"] == unit.key] == [1]
    assert not list(Path(one_round.artifacts_url).rglob("optimizer.pt")), "in the end nothing of them is left"


def test_a_worker_without_the_runs_plug_in_counts_an_attempt_and_ends(one_round: Service) -> None:
    """Its unit was sent to it again and again, for as long as a stage may last."""
    one_round.variables["ILLUME_RUNTIME__MAX_ATTEMPTS"] = "1"
    coordinator = one_round.coordinator()
    with one_round.engine() as engine, engine.begin() as connection:
        one_round.wait_for(lambda session: session.scalar(select(Unit).limit(1)), "the first unit")
        connection.exec_driver_sql("UPDATE runs SET settings = jsonb_set(settings, '{run,domain}', '\"nowhere\"')")
    unfit = one_round.worker("generator", name="unfit")
    assert one_round.ended(unfit) == 3
    said = one_round.log("unfit")
    assert "This worker cannot do units of the run 1: " in said
    assert "nowhere" in said
    assert one_round.ended(coordinator) == 1
    assert "was given up" in one_round.log("coordinator")
    assert "nowhere" in one_round.log("coordinator")
