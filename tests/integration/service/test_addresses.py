"""Every wrong address of Postgres and Redis, and every right that is missing, ends in one sentence with exit 2 or 3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from tests.support.process import Ended, run
from tests.support.servers import PostgresServer, RedisServer, free_port
from tests.support.service import Service

ROLE = "worker", "--role", "generator"


@pytest.fixture
def guarded(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """The server, with a role `locked` that needs its password, and a role `guest` that may create nothing."""
    rules = postgres.folder / "data" / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text("host all locked all scram-sha-256\n" + before)
    postgres.execute("DROP ROLE IF EXISTS locked")
    postgres.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
    postgres.execute("DROP ROLE IF EXISTS guest")
    postgres.execute("CREATE ROLE guest LOGIN")
    postgres.execute("SELECT pg_reload_conf()")
    yield postgres
    rules.write_text(before)
    postgres.execute("SELECT pg_reload_conf()")


def _told(ended: Ended, code: int, words: str, folder: Path) -> None:
    assert ended.code == code, ended.err
    (sentence,) = ended.sentences
    assert words in sentence
    assert "secret" not in ended.out + ended.err
    assert "unexpected" not in sentence
    assert not list(folder.rglob("error-*.log"))


@pytest.mark.parametrize(
    ("place", "code", "words"),
    [
        ("postgres@127.0.0.1:{port}/none", 2, 'database "none" does not exist'),
        ("nobody:secret@127.0.0.1:{port}/postgres", 2, 'role "nobody" does not exist'),
        ("locked:secret@127.0.0.1:{port}/postgres", 2, "password authentication failed"),
        ("postgres@127.0.0.1:{port}/postgres?schema=public", 2, 'invalid connection option "schema"'),
        ("postgres@127.0.0.1:{free}/postgres", 3, "Connection refused"),
        ("postgres:secret@nohost.invalid:{port}/postgres", 3, "failed to resolve host 'nohost.invalid'"),
    ],
    ids=["database", "role", "password", "parameter", "port", "host"],
)
def test_a_wrong_address_of_postgres(
    guarded: PostgresServer, place: str, code: int, words: str, tmp_path: Path
) -> None:
    url = "postgres://" + place.format(port=guarded.port, free=free_port())
    variables = {"ILLUME_STORE__DATABASE_URL": url}
    for command in (("db", "check"), ("rounds", "ls"), ("dashboard",), ("start", "--rounds", 1)):
        if command == ("rounds", "ls"):
            (tmp_path / "illume-run").mkdir(exist_ok=True)
            (tmp_path / "illume-run" / "run.json").write_text(
                '{"format": 2, "key": "k", "database": "", "begun": true}'
            )
        _told(run(*command, cwd=tmp_path, **variables), code, words, tmp_path)


def test_a_role_that_may_create_nothing(guarded: PostgresServer, tmp_path: Path) -> None:
    database = f"closed_{uuid4().hex}"
    guarded.execute(f"CREATE DATABASE {database}")
    url = f"postgresql://guest@127.0.0.1:{guarded.port}/{database}"
    ended = run("db", "upgrade", cwd=tmp_path, ILLUME_STORE__DATABASE_URL=url)
    _told(ended, 3, "permission denied for schema public", tmp_path)


def test_a_worker_that_cannot_open_its_database(one_round: Service, guarded: PostgresServer) -> None:
    url = f"postgres://locked:secret@127.0.0.1:{guarded.port}/{one_round.database}"
    ended = one_round.command(*ROLE, ILLUME_STORE__DATABASE_URL=url)
    _told(ended, 2, "password authentication failed", one_round.folder)


@pytest.fixture
def locked_redis(redis: RedisServer) -> Iterator[RedisServer]:
    """The server, which asks for a password."""
    with redis.client() as client:
        client.config_set("requirepass", "right")
        yield redis
        client.execute_command("AUTH", "right")
        client.config_set("requirepass", "")


@pytest.mark.parametrize("place", [":secret@127.0.0.1:{port}/0", "127.0.0.1:{port}/0"], ids=["wrong", "none"])
def test_a_redis_that_asks_for_a_password(one_round: Service, locked_redis: RedisServer, place: str) -> None:
    _check_worker(one_round, place.format(port=locked_redis.port))


def test_a_database_that_redis_lacks(one_round: Service, redis: RedisServer) -> None:
    _check_worker(one_round, f"127.0.0.1:{redis.port}/99")


def _check_worker(one_round: Service, place: str) -> None:
    variables = {
        "ILLUME_CLUSTER__REDIS_URL": f"redis://{place}",
        "ILLUME_CLUSTER__RECONNECT_S": "1",
    }
    _told(
        one_round.command(*ROLE, **variables),
        3,
        "see that it runs and that cluster.redis_url is right",
        one_round.folder,
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"this is no database" * 100, "file is not a database"), (None, "it is a folder; name a file in it")],
    ids=["corrupt", "folder"],
)
def test_a_file_that_is_no_database(content: bytes | None, words: str, tmp_path: Path) -> None:
    file = tmp_path / "loop.sqlite"
    file.mkdir() if content is None else file.write_bytes(content)
    for command in (("db", "check"), ("start", "--rounds", 1)):
        ended = run(*command, cwd=tmp_path, ILLUME_STORE__DATABASE_URL=f"sqlite:///{file}")
        _told(ended, 3, words, tmp_path)
