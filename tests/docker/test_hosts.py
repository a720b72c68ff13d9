"""docker-compose.hosts.yml on a real engine: a store host and a worker host, which meet over TLS alone.

Both are projects on one engine, each with its own network and `.env`. They reach the stores by the address alone. A
volume that both name takes the place of the shared folder.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.conftest import IMAGE
from tests.support.engine import BUILD_S, Project, copy_of_the_checkout, shell_blocks
from tests.support.process import TINY

pytestmark = [pytest.mark.docker, pytest.mark.timeout(7200)]
SHARED = """\
volumes:
  data:
    name: ${SHARED_VOLUME}
"""
PAGE = "use-several-gpu-hosts.md"


def _host(folder: Path, name: str, address: str, volume: str) -> Project:
    """A checkout with the `.env` that the how-to gives to every host, for a shared folder in the place of S3."""
    environ = {"ILLUME_IMAGE": IMAGE, "SHARED_VOLUME": volume}
    # No name that an interrupted run may have left behind, with a database of another password.
    project = f"illume-test-{name}-{uuid.uuid4().hex[:8]}"
    host = Project(copy_of_the_checkout(folder / name / "illume-loop"), project, environ)
    (folder / name / "home").mkdir()
    (host.folder / "configs" / "small.toml").write_text(TINY.replace("rounds = 2", "rounds = 1"))
    (host.folder / "docker-compose.shared.yml").write_text(SHARED)
    variables = _block("COMPOSE_FILE=").replace("10.0.0.1", address)
    lines = [line for line in variables.splitlines() if not line.startswith(("COMPOSE_FILE", "ARTIFACTS_URL"))]
    lines += ["COMPOSE_FILE=docker-compose.yml:docker-compose.hosts.yml:docker-compose.shared.yml", "CONFIG=small.toml"]
    lines += [f"HOST_NAME={name}"]
    (host.folder / ".env").write_text("\n".join(lines) + "\n")
    return host


@pytest.fixture(scope="module")
def hosts(engine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Project]]:
    """(store host, worker host), with passwords and certificates as the how-tos make and copy them."""
    folder = tmp_path_factory.mktemp("hosts")
    volume = f"illume-test-{folder.parent.name}-{folder.name}".lower()
    bridge = Project(folder, "none").sh("docker network inspect bridge")
    address = json.loads(bridge)[0]["IPAM"]["Config"][0]["Gateway"]
    store, worker = (_host(folder, name, address, volume) for name in ("store", "worker"))
    store.sh(shell_blocks("run-the-service.md")[0])
    store.sh(_block("install -d -m 700 tls").replace("10.0.0.1", address))
    worker.sh("install -d -m 700 secrets tls")
    for name in ("secrets/postgres_password", "secrets/redis_password", "tls/ca.crt"):
        shutil.copy2(store.folder / name, worker.folder / name)
    try:
        yield store, worker
    finally:
        worker.remove()
        store.remove()


def _block(beginning: str) -> str:
    (found,) = [block for block in shell_blocks(PAGE) if beginning in block]
    return found


def test_the_folder_of_the_certificates_stays_private(hosts: tuple[Project, Project]) -> None:
    store, _ = hosts
    assert (store.folder / "tls").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (store.folder / "tls").iterdir()) == ["ca.crt", "server.crt", "server.key"]
    assert not list(store.folder.rglob("ca.key"))
    assert (store.folder.parent / "home" / "illume-ca" / "ca.key").exists()


def test_a_round_over_tls(hosts: tuple[Project, Project]) -> None:
    store, worker = hosts
    store.sh(_block("up --detach --build postgres redis migrate loop"), deadline_s=BUILD_S)
    assert store.running() == {"postgres": 1, "redis": 1, "loop": 1}
    worker.sh(_block("up --detach --no-deps"), deadline_s=BUILD_S)
    assert worker.running() == {"generator": 2, "assessor": 1, "trainer": 1}
    rows = json.loads(worker.sh("docker compose exec generator illume-loop workers ls --json 2>/dev/null"))["workers"]
    assert {row["host"] for row in rows} <= {"worker"}
    assert store.wait_until_ended("loop") == 0, store.logs() + worker.logs()
    (round_,) = store.read("rounds", "ls", "--run-dir", "/data/run")
    assert (round_["samples"], round_["dead_units"]) == (48, 0)
    worker.wait_until_healthy("generator", "assessor", "trainer")
    store.wait_until_healthy("postgres", "redis")


def test_nobody_gets_in_without_tls_or_the_password(hosts: tuple[Project, Project]) -> None:
    store, worker = hosts
    address = "$STORES_HOST"
    script = f". ./.env; docker compose run --rm --no-deps --entrypoint python generator -c '{_CONNECT}' {address}"
    said = worker.sh(script)
    assert "no encryption" in said
    assert "redis without TLS: refused" in said
    del store


_CONNECT = """
import sys, psycopg, redis
password = open("/run/secrets/postgres_password").read().strip()
try:
    psycopg.connect(host=sys.argv[1], user="illume", dbname="illume", password=password, sslmode="disable")
except psycopg.OperationalError as error:
    print(error)
try:
    redis.Redis(host=sys.argv[1]).ping()
except redis.RedisError:
    print("redis without TLS: refused")
"""


def test_a_missing_certificate_is_named(hosts: tuple[Project, Project]) -> None:
    """And no folder takes its place."""
    _, worker = hosts
    certificate = worker.folder / "tls" / "ca.crt"
    certificate.rename(worker.folder / "tls" / "away")
    try:
        said = worker.compose("up --detach --no-deps --force-recreate generator", code=None)
        assert "ca.crt" in said
        assert "does not exist" in said
        assert not certificate.exists()
    finally:
        (worker.folder / "tls" / "away").rename(certificate)


def test_no_secret_is_seen(hosts: tuple[Project, Project]) -> None:
    for host in hosts:
        told = host.logs() + str(host.containers())
        for secret in [*host.secrets(), (hosts[0].folder / "tls" / "server.key").read_text().splitlines()[1]]:
            assert secret not in told
