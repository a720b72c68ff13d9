"""Engines and sessions. One transaction per unit of work, committed at the edge by whoever opened it.

On SQLite a writing transaction takes the write lock when it begins (BEGIN IMMEDIATE): a transaction that read first
and asked for the lock later could be refused half-way. The journal is a write-ahead log with synchronous=NORMAL: a
killed process loses nothing that was committed; a power cut may take back the last commits, never part of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from sqlite3 import Connection as SqliteConnection

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

BUSY_TIMEOUT_MS = 30_000


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """An engine with foreign keys on; `read_only` refuses every write on SQLite and never takes the write lock."""
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        _set_up_sqlite(engine, read_only)
    return engine


def _set_up_sqlite(engine: Engine, read_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def connect(connection: SqliteConnection, _record: object) -> None:
        # The driver would begin transactions by itself, but not before DDL: a killed migration would stay half done.
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
    """A session whose work is committed when the block ends, or rolled back when it raises."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session
