"""A service of real processes for each test, on servers that all of them share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.support.canned_run import result, small_settings, start
from tests.support.servers import PostgresServer, RedisServer
from tests.support.service import Service, running_service


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    # Not below pytest's folders, which the user that Postgres runs as may not enter.
    with tempfile.TemporaryDirectory(prefix="illume-pg-") as folder:
        Path(folder).chmod(0o755)
        with PostgresServer(Path(folder)) as server:
            yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def service(tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> Iterator[Service]:
    with redis.client() as client:
        client.flushall()
    with running_service(tmp_path, postgres, redis, f"service_{uuid4().hex}") as service:
        yield service


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an inline run of the same settings comes to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    start(small_settings(folder / "base"), folder / "run")
    return result(folder / "run")


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file that holds a worker at its work while it exists."""
    path = tmp_path / "hold"
    path.touch()
    return path


@pytest.fixture
def one_round(service: Service) -> Service:
    """A service whose run has one round."""
    service.settings["run.rounds"] = 1
    return service


@pytest.fixture(scope="session")
def manifest(undisturbed: dict[str, Any]) -> str:
    """The first round's manifest of an undisturbed run."""
    sha256: str = undisturbed["rounds"][0]["manifest_sha256"]
    return sha256
