"""Add preference pairs to manifests, and curation's counts."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
STATE = sa.String(16)

REFUSALS: tuple[tuple[str, str, str, str], ...] = ()
# Those of the first revision on the table that SQLite can change only by making it anew.
REFUSALS_OF_EXAMPLES = (("examples_are_immutable", "UPDATE"), ("examples_are_kept", "DELETE"))

PAIR_CHECKS = (
    (
        "ck_examples_pair_has_two",
        "(kind = 'pair') = (rejected_id IS NOT NULL) AND (rejected_id IS NULL) = (rejected_sha256 IS NULL)"
        " AND (rejected_id IS NULL OR sample_id IS NOT NULL)",
    ),
    ("ck_examples_pair_of_different", "rejected_id <> sample_id"),
)
KINDS, OLD_KINDS = "kind IN ('draw', 'read', 'pair')", "kind IN ('draw', 'read')"
# The first revision gave its checks their prefix twice; the name stays, so that going down finds it again.
KIND_CHECK = "ck_examples_ck_examples_kind_known"


def upgrade() -> None:
    op.add_column("manifests", sa.Column("counts", JSON, nullable=False, server_default="{}"))
    if _on_postgres():
        for column in _rejected():
            op.add_column("examples", column)
        _change_kinds(KINDS)
        for name, condition in PAIR_CHECKS:
            op.create_check_constraint(op.f(name), "examples", condition)
        op.create_foreign_key(
            "fk_examples_rejected_id_prompt_id",
            "examples",
            "samples",
            ["rejected_id", "prompt_id"],
            ["id", "prompt_id"],
        )
    else:
        _make_anew(pairs=True)
    op.create_index("ix_examples_rejected_id", "examples", ["rejected_id"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_examples_rejected_id", table_name="examples")
    if _on_postgres():
        for name, _ in PAIR_CHECKS:
            op.drop_constraint(op.f(name), "examples")
        op.execute("ALTER TABLE examples DISABLE TRIGGER examples_are_immutable")
        # To the revision before, the chosen image of a pair is one that was accepted, which is a row to draw.
        op.execute("UPDATE examples SET kind = 'draw' WHERE kind = 'pair'")
        op.execute("ALTER TABLE examples ENABLE TRIGGER examples_are_immutable")
        _change_kinds(OLD_KINDS)
        op.drop_constraint("fk_examples_rejected_id_prompt_id", "examples")
        for column in _rejected():
            op.drop_column("examples", column.name)
    else:
        _make_anew(pairs=False)
    op.drop_column("manifests", "counts")


def _rejected() -> list[sa.Column[Any]]:
    return [sa.Column("rejected_id", BIG, nullable=True), sa.Column("rejected_sha256", sa.String(64), nullable=True)]


def _change_kinds(condition: str) -> None:
    op.drop_constraint(op.f(KIND_CHECK), "examples")
    op.create_check_constraint(op.f(KIND_CHECK), "examples", condition)


def _make_anew(*, pairs: bool) -> None:
    columns = "manifest_id, position, kind, text, split, sample_id, prompt_id, ids_sha256, real_index"
    chosen = columns if pairs else columns.replace("kind", "CASE kind WHEN 'pair' THEN 'draw' ELSE kind END")
    op.create_table(
        "examples_anew",
        sa.Column("manifest_id", BIG, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", STATE, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("split", STATE, nullable=False),
        sa.Column("sample_id", BIG, nullable=True),
        sa.Column("prompt_id", BIG, nullable=True),
        sa.Column("ids_sha256", sa.String(64), nullable=True),
        sa.Column("real_index", sa.Integer(), nullable=True),
        *(_rejected() if pairs else ()),
        sa.CheckConstraint(KINDS if pairs else OLD_KINDS, name=op.f(KIND_CHECK)),
        sa.CheckConstraint("split = 'train'", name=op.f("ck_examples_ck_examples_only_train")),
        sa.CheckConstraint(
            "(sample_id IS NULL) = (prompt_id IS NULL) AND (sample_id IS NULL) = (ids_sha256 IS NULL)"
            " AND (sample_id IS NULL) = (real_index IS NOT NULL)",
            name=op.f("ck_examples_ck_examples_sample_or_real"),
        ),
        *((sa.CheckConstraint(condition, name=op.f(name)) for name, condition in PAIR_CHECKS) if pairs else ()),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], name="fk_examples_manifest_id"),
        sa.ForeignKeyConstraint(
            ["prompt_id", "split"], ["prompts.id", "prompts.split"], name="fk_examples_prompt_id_split"
        ),
        *(
            sa.ForeignKeyConstraint(
                [side, "prompt_id"], ["samples.id", "samples.prompt_id"], name=f"fk_examples_{side}_prompt_id"
            )
            for side in (("sample_id", "rejected_id") if pairs else ("sample_id",))
        ),
        sa.PrimaryKeyConstraint("manifest_id", "position", name="pk_examples"),
    )
    op.execute(f"INSERT INTO examples_anew ({columns}) SELECT {chosen} FROM examples")
    op.drop_table("examples")
    op.rename_table("examples_anew", "examples")
    op.create_index("ix_examples_sample_id", "examples", ["sample_id"], unique=False)
    for name, event in REFUSALS_OF_EXAMPLES:
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON examples FOR EACH ROW WHEN TRUE "
            f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
        )


def _on_postgres() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")
