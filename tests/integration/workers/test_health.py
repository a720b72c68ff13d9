"""Each heartbeat of a worker writes its health, and one that fails says why."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from illume_db.sessions import transaction
from illume_db.workers import register_worker
from illume_loop.settings import ClusterSettings
from illume_loop.telemetry.health import HealthFile
from illume_workers.heartbeat import Heartbeat

SETTINGS = ClusterSettings(heartbeat_s=5, reconnect_s=20)


def _heartbeat(engine: Engine, health: HealthFile) -> Heartbeat:
    ended: list[int] = []
    return Heartbeat(engine, "worker", SETTINGS, {"sample"}, stop=lambda: None, end=ended.append, health=health)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "health"


def test_a_heartbeat_writes_the_health(engine: Engine, path: Path) -> None:
    with transaction(engine) as session:
        register_worker(session, name="worker", host="here", pid=1, roles=["generator"], device="cpu")
    heartbeat = _heartbeat(engine, HealthFile(str(path), clock=lambda: 1000.0))
    heartbeat.beat()
    assert path.read_text() == "1030 ok worker waits for a unit\n"
    heartbeat.drain()
    heartbeat.beat()
    assert path.read_text() == "1030 ok worker is draining\n"


def test_a_worker_without_its_database_says_so(tmp_path: Path, path: Path) -> None:
    away = create_engine(f"sqlite:///{tmp_path}/missing/folder.sqlite")
    _heartbeat(away, HealthFile(str(path), clock=lambda: 1000.0)).beat()
    assert path.read_text() == "1030 unhealthy worker has no heartbeat: unable to open database file\n"
    away.dispose()
