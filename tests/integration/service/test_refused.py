"""What cannot be served is refused in one sentence, and no wait for a server is without an end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from illume_db.migrate import downgrade, upgrade
from illume_db.workers import workers_table
from tests.support.servers import free_port
from tests.support.service import Service

GENERATOR = ("worker", "--role", "generator")


@pytest.mark.parametrize(
    ("command", "changed", "code", "sentence"),
    [
        (("worker",), {}, 2, "A worker needs a role: give --role generator or --role assessor or --role trainer."),
        (("worker", "--role", "x"), {}, 2, "There is no role 'x': give --role generator"),
        (GENERATOR, {"ILLUME_STORE__DATABASE_URL": "sqlite:///loop.sqlite"}, 2, "The Celery executor needs Postgres"),
        (GENERATOR, {"ILLUME_STORE__ARTIFACTS_URL": ""}, 2, "needs a store that every host reaches"),
        (
            ("start", "--executor", "celery"),
            {"ILLUME_STORE__DATABASE_URL": ""},
            2,
            "The Celery executor needs Postgres",
        ),
        (("workers", "ls"), {"ILLUME_STORE__DATABASE_URL": ""}, 2, "Workers need a Postgres database"),
        (("workers", "drain", "nobody"), {}, 2, "There is no worker at work 'nobody'"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_cannot_be_served(
    service: Service, command: tuple[str, ...], changed: dict[str, str], code: int, sentence: str
) -> None:
    ended = service.command(*command, **changed)
    assert ended.code == code, ended.err
    assert len(ended.sentences) == 1
    assert sentence in ended.sentences[0]


def test_a_redis_that_stays_away_ends_worker_and_coordinator(one_round: Service) -> None:
    one_round.variables |= {
        "ILLUME_CLUSTER__REDIS_URL": f"redis://:secret@127.0.0.1:{free_port()}/0",
        "ILLUME_CLUSTER__RECONNECT_S": "2",
    }
    worker = one_round.worker("generator", name="worker")
    coordinator = one_round.coordinator()
    assert one_round.ended(worker) == 3
    assert one_round.worker_row("worker")["state"] == "unhealthy"
    one_round.variables["ILLUME_CLUSTER__RECONNECT_S"] = "60"
    one_round.worker("generator", name="patient")
    assert one_round.ended(coordinator) == 3, one_round.logs()
    for name in ("worker", "coordinator"):
        assert "Redis at redis://:***@127.0.0.1:" in one_round.log(name)
        assert "secret" not in one_round.log(name)


def test_a_postgres_that_stays_away_ends_worker_and_coordinator(one_round: Service) -> None:
    one_round.variables |= {
        "ILLUME_STORE__DATABASE_URL": f"postgresql+psycopg://postgres@127.0.0.1:{free_port()}/x",
        "ILLUME_CLUSTER__RECONNECT_S": "1",
    }
    processes = [one_round.worker("generator", name="worker"), one_round.coordinator()]
    assert [one_round.ended(process) for process in processes] == [3, 3]
    for name in ("worker", "coordinator"):
        assert "cannot be used (connection failed" in one_round.log(name)


def test_a_container_waits_for_what_a_person_has_to_mend(one_round: Service, tmp_path: Path) -> None:
    """Without a health file each of these ends at once; a restart policy would start it again for ever."""
    health = tmp_path / "health"
    downgrade(one_round.database_url, "base")
    worker = one_round.worker("generator", name="early", ILLUME_RUNTIME__HEALTH_FILE=str(health))
    one_round.wait_for(lambda _: health.exists() and " unhealthy " in health.read_text(), "the sentence")
    assert "run `illume-loop db upgrade`" in health.read_text()
    upgrade(one_round.database_url)
    one_round.wait_for(lambda session: workers_table(session), "the worker that began anew")
    assert (one_round.worker_row("early")["state"], one_round.worker_row("early")["pid"]) == ("running", worker.pid)
    worker.send_signal(signal.SIGTERM)
    assert one_round.ended(worker) == 143
