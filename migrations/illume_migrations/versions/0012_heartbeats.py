"""Add the time between two heartbeats of a worker, so that its row is enough to see that the worker is lost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

REFUSALS: tuple[tuple[str, str, str, str], ...] = ()


def upgrade() -> None:
    # Workers of the release before say nothing: they beat at the default of `cluster.heartbeat_s`.
    op.add_column("workers", sa.Column("heartbeat_s", sa.Double(), nullable=False, server_default="5"))


def downgrade() -> None:
    op.drop_column("workers", "heartbeat_s")
