"""Add checkpoints of trainings that are under way, so that a training resumes from a row and never from a folder."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    (
        "training_checkpoints_stay_what_they_are",
        "training_checkpoints",
        "UPDATE",
        "NEW.round_id <> OLD.round_id OR NEW.step <> OLD.step OR NEW.folder <> OLD.folder OR NEW.files <> OLD.files",
    ),
    (
        "training_checkpoints_dropped_are_gone",
        "training_checkpoints",
        "UPDATE",
        "OLD.state = 'dropped' AND NEW.state <> 'dropped'",
    ),
)


def upgrade() -> None:
    op.create_table(
        "training_checkpoints",
        sa.Column("id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("folder", sa.Text(), nullable=False),
        sa.Column("files", JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('kept', 'damaged', 'dropped')", name=op.f("ck_training_checkpoints_state_known")),
        sa.CheckConstraint("step >= 1", name=op.f("ck_training_checkpoints_step_counts")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_training_checkpoints_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_training_checkpoints"),
        sa.UniqueConstraint("folder", name="uq_training_checkpoints_folder"),
    )
    op.create_index("ix_training_checkpoints_round", "training_checkpoints", ["round_id", "state"], unique=False)
    for name, table, event, condition in REFUSALS:
        _refuse(name, table, event, condition)


def downgrade() -> None:
    # Its triggers go with the table.
    op.drop_table("training_checkpoints")


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
