"""The servers that the tests of the service start lose what they should lose, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

import psycopg
import pytest

from tests.support.servers import PostgresServer, RedisServer


def test_postgres_keeps_what_was_committed_over_a_crash() -> None:
    with tempfile.TemporaryDirectory(prefix="illume-pg-") as folder, PostgresServer(Path(folder)) as server:
        url = server.url().replace("+psycopg", "")
        server.execute("CREATE TABLE kept (id INTEGER)")
        with psycopg.connect(url) as open_transaction:
            open_transaction.execute("INSERT INTO kept VALUES (1)")
            open_transaction.commit()
            open_transaction.execute("INSERT INTO kept VALUES (2)")
            server.restart()
            with pytest.raises(psycopg.OperationalError):
                open_transaction.commit()
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT id FROM kept").fetchall() == [(1,)]


def test_redis_comes_back_empty_at_the_same_address(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        with server.client() as client:
            client.set("message", "there")
        server.restart()
        with server.client() as client:
            assert client.get("message") is None
