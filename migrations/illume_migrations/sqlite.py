"""Change a check of a table on SQLite, which can do that only by creating the table again.

The table keeps its name and its original statement: the rows are copied aside, the table is dropped and created, and
the rows are copied back. No table that refers to it has to change. SQLite checks the foreign keys when the transaction
ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op


def recreate_table(table: str, before: str, after: str, values: Mapping[str, str] | None = None) -> None:
    """Create a table again with `after` in the place of the condition `before`; keep its rows, indexes and triggers.

    `values` has the SQL expression of each column whose rows change. Raises RuntimeError if the table's statement lacks
    `before`.
    """
    connection = op.get_bind()
    made: str = connection.scalar(_schema("type = 'table' AND name = :table"), {"table": table})
    if before not in made:
        raise RuntimeError(f"the table {table} was changed by hand, so it cannot be brought to this revision")
    belonging = _schema("type IN ('index', 'trigger') AND tbl_name = :table AND sql IS NOT NULL")
    statements = list(connection.scalars(belonging, {"table": table}))
    columns = [column["name"] for column in sa.inspect(connection).get_columns(table)]
    chosen = [(values or {}).get(column, f'"{column}"') for column in columns]
    op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute(f"CREATE TEMP TABLE aside AS SELECT {', '.join(chosen)} FROM {table}")
    op.execute(f"DROP TABLE {table}")
    op.execute(made.replace(before, after))
    op.execute(f"INSERT INTO {table} SELECT * FROM temp.aside")
    op.execute("DROP TABLE temp.aside")
    for statement in statements:
        # As it stands, without looking for parameters in it: a trigger's text may hold colons.
        connection.exec_driver_sql(statement)


def _schema(condition: str) -> Any:
    return sa.text(f"SELECT sql FROM sqlite_master WHERE {condition} ORDER BY rowid")
