"""Add rollouts that wait for their update, and the names of the policies that workers draw with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

REFUSALS: tuple[tuple[str, str, str, str], ...] = ()

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.add_column("updates", sa.Column("policy_sha256", sa.String(64), nullable=True))
    op.create_table(
        "pending_rollouts",
        sa.Column("sample_id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("update_index", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("log_probs", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_pending_rollouts_sample_id"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_pending_rollouts_round_id"),
        sa.PrimaryKeyConstraint("sample_id", name="pk_pending_rollouts"),
        sa.UniqueConstraint(
            "round_id", "update_index", "position", name="uq_pending_rollouts_round_id_update_index_position"
        ),
    )


def downgrade() -> None:
    op.drop_table("pending_rollouts")
    op.drop_column("updates", "policy_sha256")
