"""Coordinator and workers finish a run, and it is the run that one process alone would have made."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

from tests.support.canned_run import result, small_settings, start
from tests.support.service import Service


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What must be equal: ids of rows follow the order of their arrival, which is free, and the bases' names differ."""
    rounds = [{key: value for key, value in row.items() if key != "num_prompts"} for row in found["rounds"]]
    return {
        "rounds": rounds,
        "samples": sorted(row[:1] + row[2:] for row in found["samples"]),
        "num_assessments": len(found["assessments"]),
        "evaluations": found["evaluations"],
        "models": [(name, state) for name, state, _ in found["models"]],
    }


def test_three_workers_finish_the_run_of_one_process(service: Service, undisturbed: dict[str, Any]) -> None:
    processes = [service.worker(role, name=role) for role in ("generator", "assessor", "trainer")]
    assert service.ended(service.coordinator()) == 0, service.logs()
    assert comparable(service.result()) == comparable(undisturbed)

    listed = json.loads(service.command("workers", "ls", "--json").out)
    rows = {row["name"]: row for row in listed["workers"]}
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(
        ("generator", "assessor", "trainer"), "running"
    )
    assert rows["generator"]["items_done"] == 2 * 6 * 3
    assert rows["generator"]["model_version"] == "v0002"
    assert rows["generator"]["device"] == "cpu"
    assert listed["queues"] == [
        {"role": role, "depth": 0, "leased": 0, "oldest_age_s": None} for role in ("generator", "assessor", "trainer")
    ]
    assert service.command("workers", "health", "--name", "trainer").code == 0

    for process in processes:
        process.send_signal(signal.SIGTERM)
    assert [service.ended(process, 20) for process in processes] == [143, 143, 143]
    gone = service.command("workers", "health", "--name", "trainer")
    assert gone.code == 3
    assert gone.sentences == [
        "illume-loop: No worker trainer has sent a heartbeat lately; start one with `illume-loop worker`, or see "
        "why it ended with `illume-loop workers ls`."
    ]


def test_rounds_that_overlap_are_those_of_one_process(service: Service, tmp_path: Path) -> None:
    start(small_settings(tmp_path / "canned", loop__overlap_rounds=1, run__rounds=3), tmp_path / "inline")
    service.settings |= {"loop.overlap_rounds": 1, "run.rounds": 3}
    for roles in (("generator", "trainer"), ("generator", "assessor"), ("assessor",)):
        service.worker(*roles, name="+".join(roles))
    assert service.ended(service.coordinator()) == 0, service.logs()
    found = service.result()
    assert comparable(found) == comparable(result(tmp_path / "inline"))
    assert [row["staleness"] for row in found["rounds"]] == [0, 1, 1]


def test_one_worker_has_all_roles(one_round: Service, manifest: str) -> None:
    one_round.worker("trainer", "generator", "assessor", name="all")
    assert one_round.ended(one_round.coordinator()) == 0, one_round.logs()
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest
    assert one_round.worker_row("all")["role"] == "generator+assessor+trainer"


def test_workers_make_the_pairs_that_one_process_makes(service: Service, tmp_path: Path) -> None:
    """They also find the best decodes, and end with the closing comparison, as one process does."""
    values = {
        "train.objective": "dpo",
        "gate.guidances": "1,2",
        "gate.decode_prompts": 4,
        "gate.closing": True,
    }
    service.settings |= values
    named = {name.replace(".", "__"): value for name, value in values.items()}
    start(small_settings(tmp_path / "inline-base", **named), tmp_path / "inline")
    expected = result(tmp_path / "inline")
    assert all(round_["curation"]["pairs"] > 0 for round_ in expected["rounds"])
    assert {"decode", "best-of"} <= {suite for _, suite, _ in expected["evaluations"]}
    assert expected["rounds"][-1]["closing"]["best_of"]["prompts"] == 24
    service.worker("generator", "assessor", "trainer", name="first")
    service.worker("generator", "assessor", name="second")
    assert service.ended(service.coordinator()) == 0, service.logs()
    assert comparable(service.result()) == comparable(expected)


def test_a_gate_with_several_looks_is_that_of_one_process(service: Service, tmp_path: Path) -> None:
    """Each look's draws are planned when the one before was not clear; who draws them makes no difference."""
    values = {"assess.assessor": "shuffled", "gate.heldout_prompts": 256, "gate.min_gain": 0.0, "run.rounds": 3}
    start(
        small_settings(tmp_path / "canned", **{name.replace(".", "__"): value for name, value in values.items()}),
        tmp_path / "inline",
    )
    alone = result(tmp_path / "inline")
    assert max(row["heldout"]["candidate"]["n"] for row in alone["rounds"]) > 64
    service.settings |= values
    service.worker("generator", "trainer", name="both")
    service.worker("assessor", name="assessor")
    assert service.ended(service.coordinator()) == 0, service.logs()
    assert comparable(service.result()) == comparable(alone)
