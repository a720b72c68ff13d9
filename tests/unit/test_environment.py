"""Values and passwords from files that variables name."""

from __future__ import annotations

from pathlib import Path

import pytest

from illume_loop.errors import SettingsError
from illume_loop.settings import load_settings

URL = "postgresql+psycopg://me@db:5432/illume"


def _write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_file_holds_the_value(tmp_path: Path) -> None:
    file = _write(tmp_path / "url", "redis://:pw@redis:6379/1\n")
    settings = load_settings(environ={"ILLUME_CLUSTER__REDIS_URL_FILE": file})
    assert settings.cluster.redis_url == "redis://:pw@redis:6379/1"
    assert settings.provenance["cluster.redis_url"] == "ILLUME_CLUSTER__REDIS_URL_FILE"


def test_a_file_holds_the_password_of_a_url(tmp_path: Path) -> None:
    file = _write(tmp_path / "password", "p@ss:w/rd?#%\n")
    environ = {"ILLUME_STORE__DATABASE_URL": URL, "ILLUME_STORE__DATABASE_URL_PASSWORD_FILE": file}
    settings = load_settings(environ=environ)
    assert settings.store.database_url == "postgresql+psycopg://me:p%40ss%3Aw%2Frd%3F%23%25@db:5432/illume"
    assert settings.resolved()["store"]["database_url"] == "postgresql+psycopg://me:***@db:5432/illume"


def test_url_and_password_may_both_be_files(tmp_path: Path) -> None:
    environ = {
        "ILLUME_STORE__DATABASE_URL_PASSWORD_FILE": _write(tmp_path / "password", "pw"),
        "ILLUME_STORE__DATABASE_URL_FILE": _write(tmp_path / "url", URL),
    }
    assert load_settings(environ=environ).store.database_url == "postgresql+psycopg://me:pw@db:5432/illume"


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({"ILLUME_RUN__SEED_FILE": "{0}/absent"}, "ILLUME_RUN__SEED_FILE names {0}/absent, which cannot be read"),
        ({"ILLUME_RUN__SEED_FILE": "{0}/empty"}, "ILLUME_RUN__SEED_FILE names {0}/empty, which is empty"),
        ({"ILLUME_RUN__SEED_FILE": "{0}/binary"}, "cannot be read (it is not text)"),
        ({"ILLUME_RUN__SEED_FILE": "{0}/seed", "ILLUME_RUN__SEED": "1"}, "are both set"),
        ({"ILLUME_RUN__SEDE_FILE": "{0}/seed"}, "unknown environment variable 'ILLUME_RUN__SEDE_FILE'"),
        ({"ILLUME_RUN__SEED_PASSWORD_FILE": "{0}/seed"}, "unknown environment variable"),
        ({"ILLUME_CLUSTER__REDIS_URL_PASSWORD_FILE": "{0}/seed"}, "needs ILLUME_CLUSTER__REDIS_URL"),
    ],
)
def test_a_wrong_variable_is_refused_and_named(tmp_path: Path, environ: dict[str, str], reason: str) -> None:
    _write(tmp_path / "empty", "\n")
    _write(tmp_path / "seed", "7")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError) as caught:
        load_settings(environ={name: value.format(tmp_path) for name, value in environ.items()})
    assert reason.format(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:hunter@22@db/x", "postgresql://me:hunter22@db:port/x", "postgresql://me:hunter22@[db/x"],
)
def test_a_url_in_pieces_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(SettingsError, match="percent-encode the password") as caught:
        load_settings(environ={"ILLUME_STORE__DATABASE_URL": url})
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("amqp://me:hunter22@broker", "redis:// or rediss://"),
        ("redis://:hunter22@redis:6379/0?socket_timeout=5", "only be those of TLS"),
    ],
)
def test_messages_go_through_redis_as_we_set_it_up(url: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        load_settings(environ={"ILLUME_CLUSTER__REDIS_URL": url})
    assert "hunter22" not in str(caught.value)


def test_settings_print_no_password() -> None:
    settings = load_settings(environ={"ILLUME_CLUSTER__REDIS_URL": "redis://:hunter22@redis:6379/0"})
    assert "hunter22" not in repr(settings)


def test_tls_options_reach_the_drivers_as_they_are() -> None:
    """TLS is a matter of the URL: nothing here reads, drops or reorders its parameters."""
    database = f"{URL}?sslmode=verify-full&sslrootcert=%2Ftls%2Fca.crt"
    redis = "rediss://redis:6380/0?ssl_cert_reqs=required&ssl_ca_certs=/tls/ca.crt"
    settings = load_settings(environ={"ILLUME_STORE__DATABASE_URL": database, "ILLUME_CLUSTER__REDIS_URL": redis})
    assert (settings.store.database_url, settings.cluster.redis_url) == (database, redis)
    assert settings.resolved()["store"]["database_url"] == database
