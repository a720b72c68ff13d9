"""Bring a database to the schema of this code, or tell that it is not there.

The revisions are the package `illume_migrations`, which is installed beside this one. Every function takes the
database's URL and leaves no connection open.
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

HEAD = "0012"
"""The last revision. It stands here too because asking Alembic takes a command that only reads half its time."""


def upgrade(url: str, revision: str = "head") -> None:
    """Apply what is missing up to `revision`; nothing to do is no error. All of it happens or none."""
    from alembic import command

    with _transaction(url) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Undo revisions down to `revision` ("base" is an empty database). Rows of dropped tables are lost."""
    from alembic import command

    with _transaction(url) as connection:
        command.downgrade(_config(connection), revision)


def current(url: str) -> str | None:
    """The revision of the database; None where it was never migrated, or is a file that is not there."""
    file = sqlite_file(url)
    if file is not None and not file.exists():
        # A look makes no file.
        return None
    with _transaction(url, read_only=True) as connection:
        if not inspect(connection).has_table(VERSION_TABLE):
            return None
        revision: str | None = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
        return revision


def head() -> str:
    """The revision that this code reads and writes."""
    return HEAD


def drift(url: str) -> list[str]:
    """How the database differs from the schema of this code, whatever its revision says; see `illume_db.schema`."""
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
    # Alembic's values are those of a configparser, where a single % is an interpolation.
    config.set_main_option("script_location", str(Path(spec.origin).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
