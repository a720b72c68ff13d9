"""Migrations go up, down and up, match the models, and happen whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

from db import migrate
from db.models import Run
from db.sessions import open_engine, transaction
from db.types import Base


def _tables(url: str) -> set[str]:
    engine = open_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_up_down_up(empty_url: str) -> None:
    assert migrate.current(empty_url) is None
    migrate.upgrade(empty_url)
    assert _tables(empty_url) == {*Base.metadata.tables, "alembic_version"}
    migrate.downgrade(empty_url, "base")
    assert _tables(empty_url) == {"alembic_version"}
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.head()
    migrate.upgrade(empty_url)
    assert migrate.current(empty_url) == migrate.head()


def test_the_migrated_schema_is_that_of_the_models(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    engine = open_engine(empty_url)
    with engine.connect() as connection:
        drift = compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), Base.metadata)
    engine.dispose()
    assert drift == []


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    """The last table of the first revision is already there, so its upgrade fails late."""
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE examples (id INTEGER)"))
    engine.dispose()
    with pytest.raises(DatabaseError, match="examples"):
        migrate.upgrade(empty_url)
    assert _tables(empty_url) == {"examples"}


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    """A reader sees the last commit while a writer is busy; foreign keys hold; a reading engine cannot write."""
    url = f"sqlite:///{tmp_path / 'test.sqlite'}"
    migrate.upgrade(url)
    writer, reader = open_engine(url), open_engine(url, read_only=True)
    with writer.connect() as writing, reader.connect() as reading:
        assert writing.scalar(text("PRAGMA journal_mode")) == "wal"
        assert writing.scalar(text("PRAGMA foreign_keys")) == 1
        writing.execute(text("DELETE FROM runs"))
        assert reading.scalar(text("SELECT count(*) FROM runs")) == 0
        with pytest.raises(DatabaseError, match="readonly"):
            reading.execute(text("DELETE FROM runs"))
    with transaction(writer) as session:
        assert session.query(Run).count() == 0
    writer.dispose()
    reader.dispose()
