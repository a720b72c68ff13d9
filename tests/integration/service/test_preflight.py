"""With workers, one of them tries one prompt through every stage before anything is drawn."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from illume_db.sessions import open_engine, transaction
from illume_db.tables import Unit
from tests.support.service import Service


def _units(service: Service) -> dict[str, tuple[str, str | None]]:
    """Return state and error of the units of the first round by their keys."""
    engine = open_engine(service.database_url, read_only=True)
    with transaction(engine) as session:
        found: dict[str, Any] = {unit.key: (unit.state, unit.error) for unit in session.scalars(select(Unit))}
    engine.dispose()
    return found


def test_the_run_is_the_one_without_it(one_round: Service, manifest: str) -> None:
    one_round.settings["run.preflight"] = True
    one_round.worker("trainer", "generator", "assessor", name="all")
    assert one_round.ended(one_round.coordinator()) == 0, one_round.logs()
    assert one_round.result()["rounds"][0]["manifest_sha256"] == manifest
    assert _units(one_round)["evaluate/preflight"] == ("done", None)


def test_what_cannot_work_is_told_before_anything_is_drawn(one_round: Service) -> None:
    one_round.settings |= {
        "run.preflight": True,
        "assess.assessor": "teacher",
        "teacher.url": "http://127.0.0.1:9/v1",
        "teacher.model": "any",
        "teacher.retries": 0,
    }
    one_round.worker("trainer", "generator", "assessor", name="all")
    assert one_round.ended(one_round.coordinator()) == 1, one_round.logs()
    assert "The teacher at http://127.0.0.1:9/v1 did not answer" in one_round.log("coordinator").splitlines()[-1]
    assert one_round.result()["samples"] == []
    assert _units(one_round)["evaluate/preflight"][0] == "dead"
