"""Add a table for the number of calls to a teacher, and a table for the teacher's answers.

`runs.teacher_calls` stays. It holds the calls that were spent before this revision, and a process of the previous
release still counts its calls there.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

REFUSALS: tuple[tuple[str, str, str, str], ...] = ()
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "teacher_budgets",
        sa.Column("run_id", BIG, nullable=False),
        sa.Column("num_calls", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_teacher_budgets_run_id"),
        sa.PrimaryKeyConstraint("run_id", name="pk_teacher_budgets"),
    )
    op.create_table(
        "teacher_answers",
        sa.Column("run_id", BIG, nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("question_sha256", sa.String(64), nullable=False),
        sa.Column("answer", sa.Boolean(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_teacher_answers_run_id"),
        sa.PrimaryKeyConstraint("run_id", "image_sha256", "question_sha256", name="pk_teacher_answers"),
    )


def downgrade() -> None:
    # The release before counts all calls in the run's row.
    op.execute(
        "UPDATE runs SET teacher_calls = teacher_calls"
        " + COALESCE((SELECT num_calls FROM teacher_budgets WHERE teacher_budgets.run_id = runs.id), 0)"
    )
    op.drop_table("teacher_answers")
    op.drop_table("teacher_budgets")
