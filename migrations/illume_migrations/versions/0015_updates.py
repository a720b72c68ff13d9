"""Add the updates of reinforcement learning, the groups of samples that they drew, and their rollouts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    ("updates_are_immutable", "updates", "UPDATE", "TRUE"),
    ("rollouts_are_immutable", "rollouts", "UPDATE", "TRUE"),
)


def upgrade() -> None:
    op.create_table(
        "updates",
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("rewards", JSON, nullable=False),
        sa.Column("checked", sa.Double(), nullable=True),
        sa.Column("num_samples", sa.Integer(), nullable=False),
        sa.Column("num_learned", sa.Integer(), nullable=False),
        sa.Column("num_groups", sa.Integer(), nullable=False),
        sa.Column("num_without_variance", sa.Integer(), nullable=False),
        sa.Column("num_with_too_few", sa.Integer(), nullable=False),
        sa.Column("entropy", sa.Double(), nullable=False),
        sa.Column("kl", sa.Double(), nullable=True),
        sa.Column("clipped", sa.Double(), nullable=False),
        sa.Column("grad_norm", sa.Double(), nullable=False),
        sa.Column("gap", sa.Double(), nullable=False),
        sa.Column("staleness", sa.Integer(), nullable=False),
        sa.Column("seconds", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint('"index" >= 1', name=op.f("ck_updates_index_from_one")),
        sa.CheckConstraint("staleness >= 0", name=op.f("ck_updates_staleness_counts")),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_updates_round_id"),
        sa.PrimaryKeyConstraint("round_id", "index", name="pk_updates"),
    )
    op.create_table(
        "update_groups",
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("update_index", sa.Integer(), nullable=False),
        sa.Column("prompt_id", BIG, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("num_scored", sa.Integer(), nullable=False),
        sa.Column("spreads", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["round_id", "update_index"],
            ["updates.round_id", "updates.index"],
            name="fk_update_groups_round_id_update_index",
        ),
        sa.ForeignKeyConstraint(
            ["round_id", "prompt_id"],
            ["round_prompts.round_id", "round_prompts.prompt_id"],
            name="fk_update_groups_round_id_prompt_id",
        ),
        sa.PrimaryKeyConstraint("round_id", "update_index", "prompt_id", name="pk_update_groups"),
        sa.UniqueConstraint(
            "round_id", "update_index", "position", name="uq_update_groups_round_id_update_index_position"
        ),
    )
    op.create_table(
        "rollouts",
        sa.Column("sample_id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("update_index", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("log_probs", sa.LargeBinary(), nullable=False),
        sa.Column("advantage", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_rollouts_sample_id"),
        sa.ForeignKeyConstraint(
            ["round_id", "update_index"],
            ["updates.round_id", "updates.index"],
            name="fk_rollouts_round_id_update_index",
        ),
        sa.PrimaryKeyConstraint("sample_id", name="pk_rollouts"),
        sa.UniqueConstraint("round_id", "update_index", "position", name="uq_rollouts_round_id_update_index_position"),
    )
    for refusal in REFUSALS:
        _refuse(*refusal)


def downgrade() -> None:
    # The triggers go with the tables. The samples and their assessments stay.
    for table in ("rollouts", "update_groups", "updates"):
        op.drop_table(table)


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
