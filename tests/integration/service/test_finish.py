"""Coordinator and workers finish a run, and it is the run that one process alone would have made."""

from __future__ import annotations

from typing import Any

from tests.support.service import Service


def comparable(found: dict[str, Any]) -> dict[str, Any]:
    """What must be equal: ids of rows follow the order of their arrival, which is free."""
    return {
        "rounds": found["rounds"],
        "samples": sorted(row[:1] + row[2:] for row in found["samples"]),
        "num_assessments": len(found["assessments"]),
        "evaluations": found["evaluations"],
        "models": found["models"],
    }


def test_three_workers_finish_the_run_of_one_process(service: Service, undisturbed: dict[str, Any]) -> None:
    for role in ("generator", "assessor", "trainer"):
        service.worker(role, name=role)
    assert service.ended(service.coordinator()) == 0, service.logs()
    assert comparable(service.result()) == comparable(undisturbed)
