"""Add the basis of an assessment: its readings and questions, the written critique, and the calibrated probability."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
REFUSALS: tuple[tuple[str, str, str, str], ...] = ()
CHECK = "CONSTRAINT ck_assessments_probability_is_one CHECK (probability BETWEEN 0 AND 1)"


def upgrade() -> None:
    op.add_column("assessments", sa.Column("details", JSON, nullable=False, server_default="{}"))
    op.add_column("assessments", sa.Column("critique", JSON, nullable=True))
    # A check that comes with its column is one that SQLite can add, and drop again, without making the table anew.
    number = sa.Double().compile(dialect=op.get_bind().dialect)
    op.execute(f"ALTER TABLE assessments ADD COLUMN probability {number} {CHECK}")


def downgrade() -> None:
    for column in ("probability", "critique", "details"):
        op.drop_column("assessments", column)
