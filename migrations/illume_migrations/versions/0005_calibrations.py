"""Add a run's calibration, each candidate's drift as a judge, and the number of calls to a teacher."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    ("calibrations_are_immutable", "calibrations", "UPDATE", "TRUE"),
    ("drifts_are_immutable", "drifts", "UPDATE", "TRUE"),
)


def upgrade() -> None:
    op.create_table(
        "calibrations",
        sa.Column("run_id", BIG, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("content", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_calibrations_run_id"),
        sa.PrimaryKeyConstraint("run_id", name="pk_calibrations"),
    )
    op.create_table(
        "drifts",
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("num_samples", sa.Integer(), nullable=False),
        sa.Column("shift", sa.Double(), nullable=False),
        sa.Column("auc", sa.Double(), nullable=True),
        sa.Column("num_failed", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_drifts_round_id"),
        sa.PrimaryKeyConstraint("round_id", name="pk_drifts"),
    )
    op.add_column("runs", sa.Column("teacher_calls", BIG, nullable=False, server_default="0"))
    for name, table, event, condition in REFUSALS:
        _refuse(name, table, event, condition)


def downgrade() -> None:
    op.drop_column("runs", "teacher_calls")
    # Their triggers go with the tables.
    op.drop_table("drifts")
    op.drop_table("calibrations")


def _refuse(name: str, table: str, event: str, condition: str) -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) "
            "EXECUTE FUNCTION illume_refuse()"
        )
    else:
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
        )
