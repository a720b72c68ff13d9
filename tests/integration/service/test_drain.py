"""A worker that is told to stop finishes its unit, or hands it back at the deadline; one that hangs ends itself."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.service import Service


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), ("command", 0)])
def test_a_drained_worker_finishes_its_unit_and_tells_who_drained_it(
    one_round: Service, hold: Path, manifest: str, how: signal.Signals | str, code: int
) -> None:
    """A restart of the host ends workers by a signal, and they come back; `workers drain` is meant to last."""
    drained = one_round.worker("generator", name="drained", HOLD_DRAWING=str(hold), ILLUME_CLUSTER__LEASE_S="60")
    coordinator = one_round.coordinator()
    unit = one_round.held()
    (held,) = one_round.shown()["held"]
    assert (held["unit"], held["worker"], held["items_total"]) == (unit.key, "drained", 7)
    if isinstance(how, signal.Signals):
        drained.send_signal(how)
    else:
        assert one_round.command("workers", "drain", "drained").code == 0
    one_round.wait_for(lambda session: one_round.worker_row("drained")["state"] == "draining", "the drain")
    hold.unlink()
    assert one_round.ended(drained) == code
    assert one_round.worker_row("drained")["state"] == "stopped"
    done = one_round.held("done")
    assert (done.id, done.attempts, done.fencing_token) == (unit.id, 0, unit.fencing_token)

    one_round.worker("generator", "assessor", "trainer", name="next")
    assert one_round.ended(coordinator) == 0, one_round.logs()
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest


def test_at_the_deadline_the_unit_is_handed_back(one_round: Service, hold: Path, manifest: str) -> None:
    drained = one_round.worker(
        "generator",
        name="drained",
        HOLD_DRAWING=str(hold),
        ILLUME_CLUSTER__LEASE_S="60",
        ILLUME_CLUSTER__DRAIN_DEADLINE_S="0.5",
    )
    coordinator = one_round.coordinator()
    unit = one_round.held()
    drained.send_signal(signal.SIGTERM)
    assert one_round.ended(drained) == 143
    back = one_round.held("pending")
    assert (back.id, back.attempts, back.fencing_token) == (unit.id, 0, unit.fencing_token + 1)
    assert "is handed back" in one_round.log("drained")

    one_round.worker("generator", "assessor", "trainer", name="next")
    assert one_round.ended(coordinator) == 0, one_round.logs()
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest


def test_a_worker_without_progress_is_unhealthy_and_ends(one_round: Service, hold: Path) -> None:
    hung = one_round.worker(
        "generator",
        name="hung",
        HOLD_DRAWING=str(hold),
        ILLUME_CLUSTER__STALL_AFTER_S="1",
        ILLUME_CLUSTER__LEASE_S="60",
    )
    one_round.coordinator()
    assert one_round.ended(hung) == 3
    row = one_round.worker_row("hung")
    assert (row["state"], row["unit"]) == ("unhealthy", None)
    assert one_round.command("workers", "health", "--name", "hung").code == 3
    assert one_round.held("pending").attempts == 0
