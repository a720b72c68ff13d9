"""Compare a database's tables, columns, constraints and triggers with the schema of this code.

The expected tables are those of the models, and a test compares the migrations with them. The expected triggers are
the REFUSALS of the revisions. Only the names of triggers are compared, not their bodies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Connection, inspect, text

import illume_db.tables  # noqa: F401 - registers every table on Base.metadata
from illume_db.types import Base

TRIGGERS = {
    "sqlite": "SELECT name, tbl_name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": (
        "SELECT DISTINCT trigger_name, event_object_table FROM information_schema.triggers"
        " WHERE trigger_schema = current_schema()"
    ),
}


def drift(connection: Connection, triggers: Iterable[tuple[str, str]]) -> list[str]:
    """Return a phrase for each difference from the schema; `triggers` are the expected (trigger, table) pairs."""
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    found = [phrase for change in compare_metadata(context, Base.metadata) for phrase in _phrases(change)]
    missing_tables = Base.metadata.tables.keys() - set(inspect(connection).get_table_names())
    found += _differences("check", _checks(connection, missing_tables), _expected_checks(missing_tables))
    present = {(name, table) for name, table in connection.execute(text(TRIGGERS[connection.dialect.name]))}
    expected = {(name, table) for name, table in triggers if table not in missing_tables}
    found += _differences("trigger", _named(present), _named(expected))
    return sorted(found)


def _phrases(change: Any) -> Iterator[str]:
    # Alembic gives a list for changes of an existing column, and a single tuple for everything else.
    if isinstance(change, list):
        for kind, _, table, column, *_ in change:
            yield f"{kind.removeprefix('modify_')} of column {table}.{column} is another"
        return
    action, what, name = change[0].partition("_")[0], change[0].partition("_")[2], change[-1]
    if what == "column":
        label = f"column {change[2]}.{name.name}"
    elif what == "table":
        label = f"table {name.name}"
    else:
        label = f"{what} {name.name} of {name.table.name}"
    yield f"{label} is missing" if action == "add" else f"{label} is unknown"


def _differences(what: str, present: set[str], expected: set[str]) -> Iterator[str]:
    yield from (f"{what} {name} is missing" for name in expected - present)
    yield from (f"{what} {name} is unknown" for name in present - expected)


def _checks(connection: Connection, missing_tables: set[str]) -> set[str]:
    inspector = inspect(connection)
    tables = Base.metadata.tables.keys() - missing_tables
    # The first revision wrote the prefix of its checks' names twice, and SQLite cannot rename them.
    return _named(
        (str(check["name"]).replace(f"ck_{table}_ck_", "ck_"), table)
        for table in tables
        for check in inspector.get_check_constraints(table)
    )


def _expected_checks(missing_tables: set[str]) -> set[str]:
    return _named(
        (str(constraint.name), name)
        for name, table in Base.metadata.tables.items()
        if name not in missing_tables
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    )


def _named(pairs: Iterable[tuple[str, str]]) -> set[str]:
    return {f"{name} of {table}" for name, table in pairs}
