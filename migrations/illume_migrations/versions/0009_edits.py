"""Add prompts that are edits of a source image, manifest rows that teach edits, and evaluations of edits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from illume_migrations.sqlite import recreate_table

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    (
        "edits_stay_what_they_are",
        "prompts",
        "UPDATE",
        "COALESCE(NEW.instruction, '') <> COALESCE(OLD.instruction, '')"
        " OR COALESCE(NEW.target, '') <> COALESCE(OLD.target, '')"
        " OR COALESCE(NEW.source_sha256, '') <> COALESCE(OLD.source_sha256, '')",
    ),
    (
        "examples_edit_what_is_an_edit",
        "examples",
        "INSERT",
        "NEW.kind IN ('draw', 'edit') AND EXISTS (SELECT 1 FROM prompts WHERE prompts.id = NEW.prompt_id"
        " AND (prompts.instruction IS NOT NULL) <> (NEW.kind = 'edit'))",
    ),
)

WHOLE = (
    "CONSTRAINT ck_prompts_edits_are_whole CHECK ((instruction IS NULL) = (target IS NULL)"
    " AND (instruction IS NULL) = (source_sha256 IS NULL))"
)
# The first revision gave its checks their prefix twice; the names stay, so that going down finds them again.
KIND_CHECK = "ck_examples_ck_examples_kind_known"
KINDS = "kind IN ('draw', 'read', 'pair', 'assess', 'correct', 'edit')"
OLD_KINDS = "kind IN ('draw', 'read', 'pair', 'assess', 'correct')"
SUITE_CHECK = "ck_evaluations_ck_evaluations_suite_known"
SUITES = "suite IN ('heldout', 'understanding', 'diversity', 'editing')"
OLD_SUITES = "suite IN ('heldout', 'understanding', 'diversity')"


def upgrade() -> None:
    op.add_column("prompts", sa.Column("instruction", sa.Text(), nullable=True))
    op.add_column("prompts", sa.Column("target", sa.Text(), nullable=True))
    # A check that comes with its column is one that SQLite can add, and drop again, without making the table anew.
    op.execute(f"ALTER TABLE prompts ADD COLUMN source_sha256 VARCHAR(64) {WHOLE}")
    _change_check("examples", KIND_CHECK, OLD_KINDS, KINDS)
    _change_check("evaluations", SUITE_CHECK, OLD_SUITES, SUITES)
    for refusal in REFUSALS:
        _refuse(*refusal)


def downgrade() -> None:
    for name, table, _, _ in reversed(REFUSALS):
        op.execute(f"DROP TRIGGER {name}{f' ON {table}' if _on_postgres() else ''}")
        if _on_postgres():
            op.execute(f"DROP FUNCTION {name}()")
    op.execute(
        "DELETE FROM evaluation_items WHERE evaluation_id IN (SELECT id FROM evaluations WHERE suite = 'editing')"
    )
    op.execute("DELETE FROM evaluations WHERE suite = 'editing'")
    _change_check("evaluations", SUITE_CHECK, SUITES, OLD_SUITES)
    # To the revision before, an edited image is one that its text drew.
    _change_check("examples", KIND_CHECK, KINDS, OLD_KINDS, kinds="CASE kind WHEN 'edit' THEN 'draw' ELSE kind END")
    for column in ("source_sha256", "target", "instruction"):
        op.drop_column("prompts", column)


def _change_check(table: str, name: str, before: str, after: str, *, kinds: str | None = None) -> None:
    """Put one condition of a table in the place of another; with `kinds`, rows get that as their kind."""
    if not _on_postgres():
        recreate_table(table, before, after, {} if kinds is None else {"kind": kinds})
        return
    op.drop_constraint(op.f(name), table)
    if kinds is not None:
        op.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_are_immutable")
        op.execute(f"UPDATE {table} SET kind = {kinds}")
        op.execute(f"ALTER TABLE {table} ENABLE TRIGGER {table}_are_immutable")
    op.create_check_constraint(op.f(name), table, after)


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
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN"
        " RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = TG_NAME;"
        " END IF; RETURN NEW; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")
