"""Whatever dies, stops or forgets, the run ends as an undisturbed one does, or says why it cannot."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Exchange, Queue

from illume_db.runs import leader_of
from tests.support.service import PATIENT, Service

QUEUE = "illume.generator"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_lost_worker_loses_its_lease_and_nothing_else(
    one_round: Service, hold: Path, manifest: str, number: signal.Signals
) -> None:
    lost = one_round.worker("generator", name="lost", HOLD_DRAWING=str(hold))
    coordinator = one_round.coordinator()
    unit = one_round.held()
    lost.send_signal(number)
    one_round.worker("generator", "assessor", "trainer", name="other")
    one_round.wait_for(lambda session: session.get_one(type(unit), unit.id).state == "done", "the other worker")
    if number == signal.SIGSTOP:
        hold.unlink()
        lost.send_signal(signal.SIGCONT)
        one_round.wait_for(lambda _: "went to another worker" in one_round.log("lost"), "the stopped worker's end")
    assert one_round.ended(coordinator) == 0, one_round.logs()
    found = one_round.result()
    assert found["rounds"][0]["manifest_sha256"] == manifest
    assert len(found["samples"]) == 18
    assert [row["attempts"] for row in one_round.shown()["units"] if row["key"] == unit.key] == [1]


def test_a_unit_given_up_fails_the_round_and_says_why(one_round: Service, hold: Path) -> None:
    one_round.variables["ILLUME_RUNTIME__MAX_ATTEMPTS"] = "1"
    one_round.worker("generator", name="lost", HOLD_DRAWING=str(hold))
    coordinator = one_round.coordinator()
    unit = one_round.held()
    one_round.processes[0].kill()
    assert one_round.ended(coordinator) == 1
    said = one_round.log("coordinator")
    assert (
        f"Round 1 failed: The unit {unit.key} failed 1 times and was given up: the lease of worker lost ran out" in said
    )
    shown = one_round.command("rounds", "show", "1", "--run-dir", one_round.run_dir).out
    assert f"{unit.key}, kind sample, state dead, attempts 1" in shown
    assert "the lease of worker lost ran out" in shown


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_standby_takes_over(one_round: Service, hold: Path, manifest: str, number: signal.Signals) -> None:
    one_round.worker("generator", "assessor", "trainer", name="worker", HOLD_DRAWING=str(hold), **PATIENT)
    first = one_round.coordinator("first")
    one_round.held()
    run_id = 1
    led_by = one_round.wait_for(lambda session: leader_of(session, run_id), "a leader")
    second = one_round.coordinator("second")
    one_round.wait_for(lambda _: "standing by" in (one_round.run_dir / "run.log").read_text(), "the standby")
    first.send_signal(number)
    one_round.wait_for(lambda session: leader_of(session, run_id) not in (None, led_by), "the standby to take over")
    hold.unlink()
    assert one_round.ended(second) == 0, one_round.logs()
    if number == signal.SIGSTOP:
        first.send_signal(signal.SIGCONT)
        assert one_round.ended(first) == 0
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest


def test_redis_and_postgres_may_be_restarted(one_round: Service, hold: Path, manifest: str) -> None:
    one_round.worker("generator", "assessor", "trainer", name="worker", HOLD_DRAWING=str(hold), **PATIENT)
    coordinator = one_round.coordinator()
    one_round.held()
    one_round.redis.restart(0.5)
    one_round.postgres.restart(0.5)
    hold.unlink()
    assert one_round.ended(coordinator) == 0, one_round.logs()
    found = one_round.result()
    assert found["rounds"][0]["manifest_sha256"] == manifest
    assert len(found["samples"]) == 18


STRANGE: list[Any] = [
    {},
    {"unit_id": "1", "token": 0},
    {"unit_id": 1},
    {"unit_id": -1, "token": 0},
    {"unit_id": True, "token": 0},
    {"unit_id": 1, "token": 0, "model": "/etc/passwd"},
    {"unit_id": 2**70, "token": 0},
    {"unit_id": 10**9, "token": 0},
]


def test_messages_that_no_coordinator_sent_are_dropped(one_round: Service, manifest: str) -> None:
    with Connection(one_round.redis.url()) as connection:
        queue = Queue(QUEUE, Exchange(QUEUE), routing_key=QUEUE)
        producer = connection.Producer(exchange=queue.exchange, routing_key=QUEUE)

        def send(body: object, task: str = "illume_loop.unit", **more: object) -> None:
            headers = {"lang": "py", "task": task, "id": uuid4().hex, "root_id": "made-up", "parent_id": None}
            producer.publish(body, headers=headers, declare=[queue], **more)

        embed = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
        for payload in STRANGE:
            send([[], payload, embed])
        send([[1, 0], {}, embed])
        send([[], {}, embed], task="os.system")
        send({"callable": "os.system"}, serializer="pickle")
        send("not a task at all")
    one_round.worker("generator", "assessor", "trainer", name="worker")
    assert one_round.ended(one_round.coordinator()) == 0, one_round.logs()
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest
    assert one_round.log("worker").count("dropped a message") == len(STRANGE) + 1


def test_a_stage_that_nobody_does_ends_the_wait(one_round: Service) -> None:
    one_round.variables["ILLUME_CLUSTER__STAGE_DEADLINE_S"] = "1"
    assert one_round.ended(one_round.coordinator()) == 3
    said = one_round.log("coordinator")
    assert "Round 1, sampling: nothing has gone on for" in said
    assert "3 units wait for the role generator, and no worker of it is alive: there has never been one" in said
