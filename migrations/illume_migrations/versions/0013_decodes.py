"""Add the decode of an evaluation, and two suites: the trials of decodes, and the base's best of several draws.

SQLite can change a check only by creating the table again; see revision 0009. The column comes after that, because the
statement that creates the table anew is the original one.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

REFUSALS: tuple[tuple[str, str, str, str], ...] = ()

TABLE = "evaluations"
# The first revision gave its checks their prefix twice; the names stay, so that going down finds them again.
CHECK = "ck_evaluations_ck_evaluations_suite_known"
SUITES = "suite IN ('heldout', 'understanding', 'diversity', 'editing', 'decode', 'best-of')"
OLD_SUITES = "suite IN ('heldout', 'understanding', 'diversity', 'editing')"


def upgrade() -> None:
    _change_check(OLD_SUITES, SUITES)
    # An evaluation of an older release does not say its decode.
    json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
    op.add_column(TABLE, sa.Column("decode", json, nullable=True))


def downgrade() -> None:
    new = "suite IN ('decode', 'best-of')"
    op.execute(f"DELETE FROM evaluation_items WHERE evaluation_id IN (SELECT id FROM {TABLE} WHERE {new})")
    op.execute(f"DELETE FROM {TABLE} WHERE {new}")
    op.drop_column(TABLE, "decode")
    _change_check(SUITES, OLD_SUITES)


def _change_check(before: str, after: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.drop_constraint(op.f(CHECK), TABLE)
        op.create_check_constraint(op.f(CHECK), TABLE, after)
        return
    connection = op.get_bind()
    made: str = connection.scalar(_schema("sql", "type = 'table' AND name = :table"), {"table": TABLE})
    if before not in made:
        raise RuntimeError(f"the table {TABLE} was changed by hand, so it cannot be brought to this revision")
    belonging = _schema("sql", "type IN ('index', 'trigger') AND tbl_name = :table AND sql IS NOT NULL")
    statements = list(connection.scalars(belonging, {"table": TABLE}))
    op.execute("PRAGMA defer_foreign_keys = ON")
    op.execute(f"CREATE TEMP TABLE aside AS SELECT * FROM {TABLE}")
    op.execute(f"DROP TABLE {TABLE}")
    op.execute(made.replace(before, after))
    op.execute(f"INSERT INTO {TABLE} SELECT * FROM temp.aside")
    op.execute("DROP TABLE temp.aside")
    for statement in statements:
        # As it stands, without looking for parameters in it: a trigger's text may hold colons.
        connection.exec_driver_sql(statement)


def _schema(column: str, condition: str) -> Any:
    return sa.text(f"SELECT {column} FROM sqlite_master WHERE {condition} ORDER BY rowid")
