"""docker-compose.yml without Docker: every service's own command and health check, to a finished round."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.composed import Composed, composed
from tests.support.process import TINY

WORKERS = ("generator", "assessor", "trainer")
SECRETS = {"postgres_password": "a/strange:pass@word?for#pg", "redis_password": 'another "strange" $one\\'}


@pytest.fixture
def bed() -> Iterator[Composed]:
    # Postgres runs as another user where this is root, and must be able to enter.
    with tempfile.TemporaryDirectory(prefix="illume-compose-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with composed(folder, SECRETS, CONFIG="tiny.toml", HOST_NAME="gpu-3") as bed:
            (folder / "configs" / "tiny.toml").write_text(TINY.replace("rounds = 2", "rounds = 1"))
            yield bed


@pytest.mark.timeout(600)
def test_every_service_to_a_finished_round(bed: Composed) -> None:
    assert bed.is_healthy("postgres")
    assert not bed.is_healthy("redis")
    redis = bed.start("redis")
    bed.wait_until_healthy("redis")

    migrated = bed.run("migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert not any(bed.is_healthy(service) for service in ("loop", "generator"))

    scaled = [bed.start("generator", f"generator-{number}") for number in (1, 2)]
    workers = [*scaled, bed.start("assessor"), bed.start("trainer")]
    loop = bed.start("loop")
    bed.wait_until_healthy(*WORKERS, "loop")
    told = _told(bed, loop, redis, *workers)

    assert bed.ended(loop) == 0, bed.logs()
    (round_,) = _read(bed, "rounds", "ls", "--run-dir=/data/run", "--json")
    assert round_["state"] in ("promoted", "rejected")
    assert (round_["samples"], round_["dead_units"]) == (48, 0)
    listed = _read(bed, "workers", "ls", "--json")["workers"]
    assert {row["host"] for row in listed} == {"gpu-3"}
    assert all("@gpu-3:" in str(row["name"]) for row in listed)
    assert sorted(row["role"] for row in listed) == ["assessor", "generator", "generator", "trainer"]
    assert sum(row["items_done"] for row in listed if row["role"] == "generator") == 48
    assert (bed.folder / "data" / "run" / "index.html").exists()

    assert bed.stop(*workers) == [143, 143, 143, 143], bed.logs()
    assert not any(bed.is_healthy(service) for service in ("loop", *WORKERS))
    _passwords_stay_secret(bed, told)


def test_redis_asks_for_the_password(bed: Composed) -> None:
    bed.start("redis")
    bed.wait_until_healthy("redis")
    for words in (["redis-cli", "ping"], ["redis-cli", "-a", "wrong", "ping"]):
        assert "NOAUTH" in (said := bed.run("redis", *words)).stdout + said.stderr
    kept = bed.run("redis", "sh", "-c", 'REDISCLI_AUTH="$(cat "$REDIS_PASSWORD_FILE")" redis-cli config get save')
    assert kept.stdout.split() == ["save"]


def _read(bed: Composed, *words: str) -> list[dict[str, object]]:
    done = bed.run("loop", "illume-loop", *words)
    assert done.returncode == 0, done.stderr
    answer: list[dict[str, object]] = json.loads(done.stdout)
    return answer


def _told(bed: Composed, *processes: subprocess.Popen[bytes]) -> str:
    """What others on the host and `docker inspect` would see of the processes: their commands and environments."""
    files = [Path(f"/proc/{process.pid}/{name}") for process in processes for name in ("cmdline", "environ")]
    return "\n".join(file.read_text(errors="replace") for file in files)


def _passwords_stay_secret(bed: Composed, told: str) -> None:
    """In no log, command, environment, settings or page, and not in the configuration of Redis."""
    written = [*bed.folder.glob("*.log"), *(bed.folder / "data" / "run").glob("*.*"), *(bed.folder / "tmp").rglob("*")]
    assert {"redis.conf", "run.json", "index.html", "loop.log"} <= {path.name for path in written}
    text = told + "".join(path.read_text(errors="replace") for path in written if path.is_file())
    shown = bed.run("loop", "illume-loop", "config", "show", "--json").stdout
    assert ":***@" in shown
    for password in SECRETS.values():
        assert password not in text + shown
