"""Migrate a database to a revision of the schema, and compare a database with the schema of this code.

The package `illume_migrations` holds the revisions. Every function that takes a URL closes the connection that it
opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from illume_db.sessions import open_engine
from illume_db.urls import sqlite_file

if TYPE_CHECKING:
    from alembic.config import Config


VERSION_TABLE = "alembic_version"

HEAD = "0016"
"""The last revision. It is repeated here because asking Alembic would take half the time of a read command."""


def upgrade(url: str, revision: str = "head") -> None:
    """Apply the missing revisions up to `revision` in one transaction; do nothing if none is missing."""
    from alembic import command

    with _transaction(url) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Undo revisions down to `revision` ("base" is an empty database). The rows of dropped tables are lost."""
    from alembic import command

    with _transaction(url) as connection:
        command.downgrade(_config(connection), revision)


def current(url: str) -> str | None:
    """Return the revision of the database; None if it was never migrated or its file does not exist."""
    file = sqlite_file(url)
    if file is not None and not file.exists():
        # SQLite would create the file.
        return None
    with _transaction(url, read_only=True) as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        revision: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
        return revision


def head() -> str:
    """Return the revision that this code reads and writes."""
    return HEAD


def drift(url: str) -> list[str]:
    """Return the differences between the database and the schema of this code; see `illume_db.schema`.

    The revision that the database names is not read.
    """
    from alembic.script import ScriptDirectory

    from illume_db.schema import drift as find_drift

    revisions = ScriptDirectory.from_config(_config()).walk_revisions()
    triggers = [(name, table) for script in revisions for name, table, _, _ in script.module.REFUSALS]
    with _transaction(url, read_only=True) as connection:
        return find_drift(connection, triggers)


@contextmanager
def _transaction(url: str, *, read_only: bool = False) -> Iterator[Connection]:
    engine = open_engine(url, read_only=read_only)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _config(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    spec = find_spec("illume_migrations")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("the package `illume_migrations`, which is installed with illume-loop, is missing")
    config = Config()
    # Alembic reads its values with configparser, which takes a single % for an interpolation.
    config.set_main_option("script_location", str(Path(spec.origin).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
