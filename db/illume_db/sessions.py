"""Database engines and sessions: one transaction per piece of work, committed by the caller that opened it.

Invariants:

- On SQLite, a writing transaction takes the write lock when it begins (BEGIN IMMEDIATE). A transaction that read first
  and asked for the lock later could be refused half-way.
- On SQLite, a killed process loses no commit. A power cut may lose the last commits, but never a part of one: the
  journal is a write-ahead log with synchronous=NORMAL.
- On Postgres, every wait has a timeout: for a connection, for a lock, and for a transaction whose process has stopped
  while it holds locks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from sqlite3 import Connection as SqliteConnection
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session

from illume_db.errors import name_database

BUSY_TIMEOUT_MS = 30_000

LOCK_TIMEOUT_MS = 20_000

IDLE_IN_TRANSACTION_MS = 30_000
"""A limit that is longer than any computation between two statements of our transactions."""

CONNECT_TIMEOUT_S = 10


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """Return an engine with foreign keys on, whose driver errors carry the database's URL (`illume_db.errors`).

    With `read_only`, an SQLite engine refuses every write and never takes the write lock.
    """
    engine = create_engine(url, connect_args=_connect_args(url))
    event.listen(engine, "handle_error", name_database)
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine, read_only)
    else:
        _set_up_postgres(engine)
    return engine


def _connect_args(url: str) -> dict[str, Any]:
    if not url.startswith("postgresql"):
        return {}
    # Keepalives detect a vanished host within about half a minute.
    keepalives = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4}
    given = make_url(url).query
    return {
        name: value for name, value in {"connect_timeout": CONNECT_TIMEOUT_S, **keepalives}.items() if name not in given
    }


def _set_up_postgres(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: DBAPIConnection, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET lock_timeout = {LOCK_TIMEOUT_MS}")
        cursor.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
        cursor.close()
        connection.commit()


def _set_up_sqlite(engine: Engine, read_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: SqliteConnection, _record: object) -> None:
        # The driver begins no transaction before DDL by itself, so a killed migration would stay half done.
        connection.isolation_level = None
        for pragma in _pragmas(read_only):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _pragmas(read_only: bool) -> Iterator[str]:
    yield f"busy_timeout = {BUSY_TIMEOUT_MS}"
    yield "foreign_keys = ON"
    if read_only:
        yield "query_only = ON"
    else:
        yield "journal_mode = WAL"
        yield "synchronous = NORMAL"


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """Open a session; commit its work when the block ends, or roll it back when the block raises."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session
