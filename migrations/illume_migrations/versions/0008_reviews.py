"""Add reviews of one sample by several people, and an index for pages of a round's samples."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
STATE = sa.String(16)
REFUSALS: tuple[tuple[str, str, str, str], ...] = ()

ASSESSMENTS = sa.table(
    "assessments",
    sa.column("sample_id", BIG),
    sa.column("assessor", STATE),
    sa.column("state", STATE),
    sa.column("score", sa.Double()),
    sa.column("details", JSON),
)


def upgrade() -> None:
    reviews = op.create_table(
        "reviews",
        sa.Column("id", BIG, nullable=False),
        sa.Column("sample_id", BIG, nullable=False),
        sa.Column("reviewer", sa.String(64), nullable=False),
        sa.Column("verdict", STATE, nullable=False),
        sa.Column("criteria", JSON, nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("reason", STATE, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("verdict IN ('agree', 'disagree', 'skip')", name=op.f("ck_reviews_verdict_known")),
        sa.CheckConstraint(
            "reason IN ('chosen', 'disagreement', 'boundary', 'random', 'overlap')",
            name=op.f("ck_reviews_reason_known"),
        ),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_reviews_sample_id"),
        sa.PrimaryKeyConstraint("id", name="pk_reviews"),
        sa.UniqueConstraint("sample_id", "reviewer", name="uq_reviews_sample_id_reviewer"),
    )
    op.create_index("ix_samples_round_id_id", "samples", ["round_id", "id"], unique=False)
    # Reviews there were, but nobody was asked for a name.
    human = sa.select(ASSESSMENTS.c.sample_id, ASSESSMENTS.c.score, ASSESSMENTS.c.details)
    rows = [
        {
            "sample_id": sample_id,
            "reviewer": "unknown",
            "verdict": "agree" if score == 1.0 else "disagree",
            "criteria": details.get("criteria", {}),
            "comment": details.get("comment", ""),
            "reason": "chosen",
        }
        for sample_id, score, details in op.get_bind().execute(human.where(ASSESSMENTS.c.assessor == "human"))
    ]
    if rows:
        op.get_bind().execute(sa.insert(reviews).values(created_at=sa.func.current_timestamp()), rows)


def downgrade() -> None:
    # The revision before knows one verdict of a sample, and takes whatever is no agreement for its opposite.
    differing = (ASSESSMENTS.c.assessor == "human") & (ASSESSMENTS.c.state == "abstained")
    op.get_bind().execute(sa.delete(ASSESSMENTS).where(differing))
    op.drop_index("ix_samples_round_id_id", table_name="samples")
    op.drop_table("reviews")
