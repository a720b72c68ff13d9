"""TLS options of the URLs reach the drivers, and a server that cannot prove itself is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from kombu import Connection

from illume_loop.settings import load_settings
from illume_workers.app import configuration
from tests.support.service import Service
from tests.support.tls import authority, tls_in_front


@dataclass(frozen=True)
class Fronts:
    """A service whose servers are reached by TLS, under a certificate of `ca`; `stranger` signed none of them."""

    service: Service
    redis_port: int
    postgres_port: int
    ca: Path
    stranger: Path

    def database_url(self, ca: Path, mode: str = "verify-full") -> str:
        options = f"?sslmode={mode}&sslrootcert={ca}"
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.postgres_port}/{self.service.database}{options}"

    def redis_url(self, ca: Path) -> str:
        return f"rediss://127.0.0.1:{self.redis_port}/0?ssl_cert_reqs=required&ssl_ca_certs={ca}"


@pytest.fixture
def fronts(service: Service, tmp_path: Path) -> Iterator[Fronts]:
    signer, ca = authority(tmp_path)
    _, stranger = authority(tmp_path, "stranger.crt")
    with (
        tls_in_front(service.redis.port, signer, tmp_path) as redis_port,
        tls_in_front(service.postgres.port, signer, tmp_path, postgres=True) as postgres_port,
    ):
        yield Fronts(service, redis_port, postgres_port, ca, stranger)


def test_a_run_over_tls(fronts: Fronts) -> None:
    service = fronts.service
    service.variables |= {
        "ILLUME_STORE__DATABASE_URL": fronts.database_url(fronts.ca),
        "ILLUME_CLUSTER__REDIS_URL": fronts.redis_url(fronts.ca),
    }
    service.settings["run.rounds"] = 1
    service.worker("generator", "assessor", "trainer", name="all")
    assert service.ended(service.coordinator()) == 0, service.logs()
    (round_,) = service.result()["rounds"]
    assert round_["state"] in ("promoted", "rejected")


def test_a_postgres_of_a_stranger_is_refused(fronts: Fronts) -> None:
    refused = fronts.service.command(
        "workers",
        "ls",
        ILLUME_STORE__DATABASE_URL=fronts.database_url(fronts.stranger),
        ILLUME_CLUSTER__RECONNECT_S="1",
    )
    assert (refused.code, len(refused.sentences)) == (3, 1), refused.err
    assert "certificate verify failed" in refused.err


def test_nobody_gets_in_without_tls(fronts: Fronts) -> None:
    plain = fronts.database_url(fronts.ca, "disable")
    assert fronts.service.command("workers", "ls", ILLUME_STORE__DATABASE_URL=plain).code == 3


@pytest.mark.parametrize("options", ["?ssl_cert_reqs=required&ssl_ca_certs={stranger}", ""])
def test_a_redis_of_a_stranger_is_refused(fronts: Fronts, options: str) -> None:
    """Also where the URL says nothing of certificates: the worker ends as unhealthy, and names the reason."""
    url = f"rediss://127.0.0.1:{fronts.redis_port}/0" + options.format(stranger=fronts.stranger)
    more = {"ILLUME_CLUSTER__REDIS_URL": url, "ILLUME_CLUSTER__RECONNECT_S": "1"}
    worker = fronts.service.worker("generator", name="refused", **more)
    assert fronts.service.ended(worker) == 3, fronts.service.logs()
    assert "CERTIFICATE_VERIFY_FAILED" in fronts.service.log("refused")


def test_who_wants_no_proof_has_to_say_so() -> None:
    def reads(url: str) -> object:
        settings = load_settings(environ={"ILLUME_CLUSTER__REDIS_URL": url})
        return Connection(configuration(settings.cluster)["broker_url"]).ssl

    assert reads("rediss://redis:6380/0") == {"ssl_cert_reqs": 2}
    assert reads("rediss://redis:6380/0?ssl_cert_reqs=none") == {"ssl_cert_reqs": 0}
    assert not reads("redis://redis:6379/0")
