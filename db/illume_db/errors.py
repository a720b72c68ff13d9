"""The reason why a database cannot be used, read from the driver's error.

The code knows the drivers' classes by name, because an import of the drivers would slow down the start of every
command.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ExceptionContext

from illume_db.urls import sqlite_file

Kind = Literal["address", "unusable", "full"]

DRIVERS = ("sqlite3", "psycopg")

_DATABASE = "illume_database"

_UNUSABLE = (
    "OperationalError",
    "InsufficientPrivilege",
    "InvalidAuthorizationSpecification",
    "InvalidCatalogName",
    "InvalidSchemaName",
    "ReadOnlySqlTransaction",
    "UndefinedTable",
)
"""Names of error classes of both drivers. They include the errors of a server that has lost its tables or grants no
rights."""

_WRONG_ADDRESS = (
    "password authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "invalid connection option",
    "invalid URI query parameter",
    "invalid port",
    "invalid integer value",
    "invalid sslmode",
)
"""Phrases in errors of libpq, psycopg and the server. An error with one of them stays the same at every retry."""

_MISSING = ("database ", "role ")


@dataclass(frozen=True, slots=True)
class DatabaseProblem:
    """The reason why a database cannot be used.

    `kind` is `address` if its URL is wrong, `full` if its disk is full, and `unusable` otherwise.
    """

    kind: Kind
    reason: str
    database: str
    """The database's URL without the password; empty if it is unknown."""


def name_database(context: ExceptionContext) -> None:
    """Store the database's URL, without the password, on the driver's error. It is a listener of `handle_error`."""
    if context.engine is not None:
        setattr(context.original_exception, _DATABASE, context.engine.url.render_as_string(hide_password=True))


def problem_of(error: BaseException) -> DatabaseProblem | None:
    """Return the reason why the database cannot be used; None if `error` has no such driver error in its chain."""
    links = list(_chain(error))
    database = next((str(found) for link in links if (found := getattr(link, _DATABASE, ""))), "")
    for link in links:
        if type(link).__module__.split(".")[0] in DRIVERS and (kind := _kind_of(link)):
            return DatabaseProblem(kind, _reason(link, database), database)
    return None


def _reason(error: BaseException, database: str) -> str:
    reason = " ".join(str(error).split())
    if reason == "unable to open database file" and (file := sqlite_file(database) if database else None):
        if file.is_dir():
            return "it is a folder; name a file in it"
        if not file.parent.is_dir():
            return f"there is no folder {file.parent}"
    return reason


def _kind_of(error: BaseException) -> Kind | None:
    reason = str(error)
    names = {base.__name__ for base in type(error).__mro__}
    if "disk is full" in reason or "DiskFull" in names:
        return "full"
    if _is_wrong_address(reason):
        return "address"
    # SQLite raises DatabaseError itself for a damaged file. Its subclasses mostly mean a fault in our own code.
    if names.intersection(_UNUSABLE) or type(error).__name__ == "DatabaseError":
        return "unusable"
    return None


def _is_wrong_address(reason: str) -> bool:
    if any(words in reason for words in _WRONG_ADDRESS):
        return True
    return "FATAL" in reason and "does not exist" in reason and any(what in reason for what in _MISSING)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class FencedOutError(Exception):
    """A write under a lost lease, which is a worker's lease on a unit or a coordinator's lease on a run."""

    def __init__(self, unit: str) -> None:
        self.unit = unit
        super().__init__(f"lease on unit {unit} lost")
