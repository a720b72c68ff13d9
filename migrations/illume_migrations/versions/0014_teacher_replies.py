"""Keep the written assessments of a teacher as they come, beside its answers of yes and no."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

REFUSALS: tuple[tuple[str, str, str, str], ...] = ()


def upgrade() -> None:
    reply = sa.JSON(none_as_null=True).with_variant(postgresql.JSONB(none_as_null=True), "postgresql")
    op.add_column("teacher_answers", sa.Column("reply", reply, nullable=True))


def downgrade() -> None:
    # The release before takes a row without an answer for one that the teacher would not give.
    op.execute("DELETE FROM teacher_answers WHERE reply IS NOT NULL")
    op.drop_column("teacher_answers", "reply")
