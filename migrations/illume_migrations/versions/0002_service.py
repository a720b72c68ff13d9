"""Add leadership, workers, counts of units, rows and readiness of units, and staleness, for several processes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
STATE = sa.String(16)
TIME = sa.DateTime(timezone=True)

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    ("units_final_state_is_final", "units", "UPDATE", "OLD.state IN ('done', 'dead')"),
    ("units_fencing_token_only_rises", "units", "UPDATE", "NEW.fencing_token < OLD.fencing_token"),
    ("rounds_name_their_drawing_version", "rounds", "INSERT", "NEW.drawing_version_id IS NULL"),
    ("rounds_keep_their_drawing_version", "rounds", "UPDATE", "NEW.drawing_version_id IS NULL"),
)
# Partial indexes: they stay as small as what is under way, however many units are done.
INDEXES = (
    ("ix_units_due", ["round_id", "kind", "id"], "state = 'pending' AND ready_at IS NOT NULL"),
    ("ix_units_issued", ["round_id", "kind"], "state = 'pending' AND issued_at IS NOT NULL"),
    ("ix_units_leased", ["round_id", "kind"], "state = 'leased'"),
    ("ix_units_dead", ["round_id", "kind"], "state = 'dead'"),
)


def upgrade() -> None:
    for table, column in _columns():
        op.add_column(table, column)
    # Written out, because SQLite takes a foreign key only with the column that has it.
    big = "BIGINT" if _on_postgres() else "INTEGER"
    op.execute(
        f"ALTER TABLE rounds ADD COLUMN drawing_version_id {big}"
        " CONSTRAINT fk_rounds_drawing_version_id REFERENCES model_versions (id)"
    )
    op.create_table(
        "stage_counts",
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("kind", STATE, nullable=False),
        sa.Column("num_units", sa.Integer(), nullable=False),
        sa.Column("num_pending", sa.Integer(), nullable=False),
        sa.Column("num_leased", sa.Integer(), nullable=False),
        sa.Column("num_done", sa.Integer(), nullable=False),
        sa.Column("num_dead", sa.Integer(), nullable=False),
        sa.Column("items_total", BIG, nullable=False),
        sa.Column("items_done", BIG, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("progress_at", TIME, nullable=True),
        sa.CheckConstraint(
            "kind IN ('sample', 'assess', 'train', 'evaluate')", name=op.f("ck_stage_counts_kind_known")
        ),
        sa.CheckConstraint(
            "num_units = num_pending + num_leased + num_done + num_dead", name=op.f("ck_stage_counts_states_sum_up")
        ),
        sa.CheckConstraint(
            "num_pending >= 0 AND num_leased >= 0 AND num_done >= 0 AND num_dead >= 0",
            name=op.f("ck_stage_counts_none_below_zero"),
        ),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_stage_counts_round_id"),
        sa.PrimaryKeyConstraint("round_id", "kind", name="pk_stage_counts"),
    )
    op.create_table(
        "workers",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("roles", JSON, nullable=False),
        sa.Column("device", sa.String(64), nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("drain_requested", sa.Boolean(), nullable=False),
        sa.Column("model_version", sa.String(32), nullable=True),
        sa.Column("unit_key", sa.String(128), nullable=True),
        sa.Column("items_done", BIG, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=False),
        sa.Column("progress_at", TIME, nullable=False),
        sa.CheckConstraint(
            "state IN ('running', 'draining', 'stopped', 'unhealthy')", name=op.f("ck_workers_state_known")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sa.UniqueConstraint("name", name="uq_workers_name"),
    )
    _fill()
    op.create_index("ix_units_rows", "units", ["round_id", "kind", "first_row"], unique=False)
    for name, columns, condition in INDEXES:
        where = sa.text(condition)
        op.create_index(name, "units", columns, unique=False, sqlite_where=where, postgresql_where=where)
    for name, table, event, condition in REFUSALS:
        _refuse(name, table, event, condition)


def downgrade() -> None:
    for name, table, _, _ in reversed(REFUSALS):
        on_table = f" ON {table}" if _on_postgres() else ""
        op.execute(f"DROP TRIGGER {name}{on_table}")
    for name, _, _ in reversed(INDEXES):
        op.drop_index(name, table_name="units")
    op.drop_index("ix_units_rows", table_name="units")
    make = "jsonb_build_object" if _on_postgres() else "json_object"
    op.execute(f"UPDATE units SET payload = {make}('first', first_row, 'stop', stop_row) WHERE first_row IS NOT NULL")
    op.drop_table("workers")
    op.drop_table("stage_counts")
    op.drop_column("rounds", "drawing_version_id")
    for table, column in reversed(_columns()):
        op.drop_column(table, column.name)


def _columns() -> list[tuple[str, sa.Column[Any]]]:
    return [
        ("runs", sa.Column("leader", sa.String(128))),
        ("runs", sa.Column("leader_token", BIG, nullable=False, server_default="0")),
        ("runs", sa.Column("leader_expires_at", TIME)),
        ("rounds", sa.Column("staleness", sa.Integer(), nullable=False, server_default="0")),
        ("samples", sa.Column("staleness", sa.SmallInteger(), nullable=False, server_default="0")),
        ("units", sa.Column("first_row", sa.Integer())),
        ("units", sa.Column("stop_row", sa.Integer())),
        ("units", sa.Column("ready_at", TIME)),
        ("units", sa.Column("issued_at", TIME)),
        ("units", sa.Column("items_done", sa.Integer(), nullable=False, server_default="0")),
        ("units", sa.Column("items_total", sa.Integer(), nullable=False, server_default="0")),
        ("units", sa.Column("progress_at", TIME)),
    ]


def _fill() -> None:
    """What the rows of the revision before mean in the new columns."""
    op.execute("UPDATE rounds SET drawing_version_id = parent_version_id")
    for kind, column, name in (
        ("('sample', 'assess')", "first_row", "first"),
        ("('sample', 'assess')", "stop_row", "stop"),
        ("('evaluate')", "items_total", "count"),
    ):
        op.execute(f"UPDATE units SET {column} = {_of_payload(name)} WHERE kind IN {kind}")
    op.execute("UPDATE units SET items_total = stop_row - first_row WHERE kind IN ('sample', 'assess')")
    op.execute("UPDATE units SET items_done = items_total WHERE state = 'done'")
    op.execute("UPDATE units SET payload = '{}' WHERE kind IN ('sample', 'assess')")
    op.execute(
        "UPDATE units SET ready_at = (SELECT created_at FROM rounds WHERE rounds.id = units.round_id)"
        " WHERE kind <> 'assess' OR state <> 'pending' OR NOT EXISTS ("
        "SELECT 1 FROM units AS drawn WHERE drawn.round_id = units.round_id AND drawn.kind = 'sample'"
        " AND drawn.state IN ('pending', 'leased')"
        " AND drawn.first_row < units.stop_row AND units.first_row < drawn.stop_row)"
    )
    op.execute(
        "INSERT INTO stage_counts (round_id, kind, num_units, num_pending, num_leased, num_done, num_dead,"
        " items_total, items_done, seconds)"
        " SELECT round_id, kind, count(*), sum(CASE state WHEN 'pending' THEN 1 ELSE 0 END),"
        " sum(CASE state WHEN 'leased' THEN 1 ELSE 0 END), sum(CASE state WHEN 'done' THEN 1 ELSE 0 END),"
        " sum(CASE state WHEN 'dead' THEN 1 ELSE 0 END), sum(items_total), sum(items_done), coalesce(sum(seconds), 0)"
        " FROM units GROUP BY round_id, kind"
    )


def _of_payload(name: str) -> str:
    return f"CAST(payload ->> '{name}' AS INTEGER)" if _on_postgres() else f"json_extract(payload, '$.{name}')"


def _on_postgres() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def _refuse(name: str, table: str, event: str, condition: str) -> None:
    if _on_postgres():
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) "
            "EXECUTE FUNCTION illume_refuse()"
        )
    else:
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
        )
