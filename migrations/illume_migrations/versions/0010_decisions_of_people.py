"""Refuse forbidden moves of model versions, and add rounds that are run again.

The triggers on model_versions refuse the moves that once left a run without an active version: a version under trial
was made active by hand, and the gate then rejected it. The triggers change no row, so a run that is in that state
already keeps it until the next start repairs it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ENDED = "('promoted', 'rejected', 'failed', 'cancelled')"
UNDER_TRIAL = (
    f"EXISTS (SELECT 1 FROM rounds WHERE rounds.candidate_version_id = OLD.id AND rounds.state NOT IN {ENDED})"
)
MOVES = (
    "(OLD.state = 'candidate' AND NEW.state IN ('active', 'rejected'))"
    " OR (OLD.state = 'active' AND NEW.state = 'retired')"
    " OR (OLD.state IN ('rejected', 'retired') AND NEW.state = 'active')"
)

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    ("versions_move_as_allowed", "model_versions", "UPDATE", f"NEW.state <> OLD.state AND NOT ({MOVES})"),
    (
        "versions_under_trial_stay",
        "model_versions",
        "UPDATE",
        f"OLD.state = 'candidate' AND NEW.state <> OLD.state AND {UNDER_TRIAL}",
    ),
    ("versions_in_use_are_kept", "model_versions", "DELETE", f"OLD.state = 'active' OR {UNDER_TRIAL}"),
    (
        "rounds_to_retry_have_ended",
        "rounds",
        "UPDATE",
        "NEW.retry_requested_at IS NOT NULL AND NEW.state NOT IN ('failed', 'cancelled')",
    ),
    (
        "rounds_retry_what_was_asked",
        "rounds",
        "INSERT",
        "NEW.retry_of_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM rounds AS retried WHERE retried.id = NEW.retry_of_id"
        " AND retried.run_id = NEW.run_id AND retried.retry_requested_at IS NOT NULL)",
    ),
)


def upgrade() -> None:
    op.add_column("rounds", sa.Column("retry_requested_at", TIME, nullable=True))
    # Written out, because SQLite takes a foreign key only with the column that has it.
    big = "BIGINT" if _on_postgres() else "INTEGER"
    op.execute(
        f"ALTER TABLE rounds ADD COLUMN retry_of_id {big} CONSTRAINT fk_rounds_retry_of_id REFERENCES rounds (id)"
    )
    op.create_index("uq_rounds_retry_of_id", "rounds", ["retry_of_id"], unique=True)
    for refusal in REFUSALS:
        _refuse(*refusal)


def downgrade() -> None:
    for name, table, _, _ in reversed(REFUSALS):
        op.execute(f"DROP TRIGGER {name}{f' ON {table}' if _on_postgres() else ''}")
        if _on_postgres():
            op.execute(f"DROP FUNCTION {name}()")
    op.drop_index("uq_rounds_retry_of_id", table_name="rounds")
    op.drop_column("rounds", "retry_of_id")
    op.drop_column("rounds", "retry_requested_at")


def _on_postgres() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def _refuse(name: str, table: str, event: str, condition: str) -> None:
    if not _on_postgres():
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
        )
        return
    # A trigger's own condition may ask for no other row there, so each has a function that does.
    row = "OLD" if event == "DELETE" else "NEW"
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN"
        " RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = TG_NAME;"
        f" END IF; RETURN {row}; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")
