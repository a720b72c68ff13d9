"""Add the decode of an evaluation, and two suites: the trials of decodes, and the base's best of several draws.

The column comes after the check, because on SQLite the statement that creates the table again is the original one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from illume_migrations.sqlite import recreate_table

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
    else:
        recreate_table(TABLE, before, after)
