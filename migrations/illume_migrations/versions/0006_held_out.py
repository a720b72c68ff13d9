"""Keep the texts of held-out prompts out of manifests; add rows of assessments, in one turn and in two, with answers.

Before, only a row's sample bound the row to a train prompt. Now triggers refuse the following:

- a row whose text is not its prompt's
- a row with the text of a prompt that is not in the split `train`; captions of replayed pairs are no prompts
- a held-out or probe prompt whose text a manifest of the run already has
- wordings of one composition in different splits
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
STATE = sa.String(16)

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    (
        "examples_are_worded_as_their_prompt",
        "examples",
        "INSERT",
        "EXISTS (SELECT 1 FROM prompts WHERE prompts.id = NEW.prompt_id AND prompts.text <> NEW.text)",
    ),
    (
        "examples_have_no_text_held_out",
        "examples",
        "INSERT",
        "EXISTS (SELECT 1 FROM manifests JOIN rounds ON rounds.id = manifests.round_id"
        " JOIN prompts ON prompts.run_id = rounds.run_id AND prompts.text = NEW.text"
        " WHERE manifests.id = NEW.manifest_id AND prompts.split <> 'train')",
    ),
    (
        "prompts_held_out_were_not_learned",
        "prompts",
        "INSERT",
        "NEW.split <> 'train' AND EXISTS (SELECT 1 FROM examples JOIN manifests ON manifests.id = examples.manifest_id"
        " JOIN rounds ON rounds.id = manifests.round_id"
        " WHERE examples.text = NEW.text AND rounds.run_id = NEW.run_id)",
    ),
    (
        "prompts_of_one_key_have_one_split",
        "prompts",
        "INSERT",
        "EXISTS (SELECT 1 FROM prompts AS other WHERE other.run_id = NEW.run_id AND other.key = NEW.key"
        " AND other.split <> NEW.split)",
    ),
    (
        "prompts_stay_what_they_are",
        "prompts",
        "UPDATE",
        "NEW.run_id <> OLD.run_id OR NEW.split <> OLD.split OR NEW.key <> OLD.key OR NEW.text <> OLD.text",
    ),
)
# Those of the first revision on the table that SQLite can change only by making it anew.
REFUSALS_OF_EXAMPLES = (("examples_are_immutable", "UPDATE"), ("examples_are_kept", "DELETE"))

# The first revision gave its checks their prefix twice; the names stay, so that going down finds them again.
TWICE = "ck_examples_ck_examples_"
KIND_CHECK = f"{TWICE}kind_known"
KINDS, OLD_KINDS = "kind IN ('draw', 'read', 'pair', 'assess', 'correct')", "kind IN ('draw', 'read', 'pair')"
TWO_CHECK = "ck_examples_pair_has_two"
ANSWER_CHECK = "ck_examples_assessments_answer"
ANSWERED = "(kind IN ('assess', 'correct')) = (answer IS NOT NULL) AND (answer IS NULL OR sample_id IS NOT NULL)"
# To the revision before, a corrected image is a pair without its assessment, and a good one is its prompt's to read.
OLD_KIND = "CASE kind WHEN 'correct' THEN 'pair' WHEN 'assess' THEN 'read' ELSE kind END"


def upgrade() -> None:
    if _on_postgres():
        op.add_column("examples", _answer())
        _change_checks(KINDS, _has_two("kind IN ('pair', 'correct')"))
        op.create_check_constraint(op.f(ANSWER_CHECK), "examples", ANSWERED)
    else:
        _make_anew(answers=True)
    op.create_index("ix_examples_text", "examples", ["text"], unique=False)
    op.create_index("ix_prompts_run_id_key", "prompts", ["run_id", "key"], unique=False)
    for refusal in REFUSALS:
        _refuse(*refusal)


def downgrade() -> None:
    for name, table, _, _ in reversed(REFUSALS):
        op.execute(f"DROP TRIGGER {name}{f' ON {table}' if _on_postgres() else ''}")
        if _on_postgres():
            op.execute(f"DROP FUNCTION {name}()")
    op.drop_index("ix_prompts_run_id_key", table_name="prompts")
    op.drop_index("ix_examples_text", table_name="examples")
    if _on_postgres():
        op.drop_constraint(op.f(ANSWER_CHECK), "examples")
        for name in (KIND_CHECK, TWO_CHECK):
            op.drop_constraint(op.f(name), "examples")
        op.execute("ALTER TABLE examples DISABLE TRIGGER examples_are_immutable")
        op.execute(f"UPDATE examples SET kind = {OLD_KIND}")
        op.execute("ALTER TABLE examples ENABLE TRIGGER examples_are_immutable")
        op.create_check_constraint(op.f(KIND_CHECK), "examples", OLD_KINDS)
        op.create_check_constraint(op.f(TWO_CHECK), "examples", _has_two("kind = 'pair'"))
        op.drop_column("examples", "answer")
    else:
        _make_anew(answers=False)


def _answer() -> sa.Column[Any]:
    return sa.Column("answer", sa.Text(), nullable=True)


def _has_two(kinds: str) -> str:
    return (
        f"({kinds}) = (rejected_id IS NOT NULL) AND (rejected_id IS NULL) = (rejected_sha256 IS NULL)"
        " AND (rejected_id IS NULL OR sample_id IS NOT NULL)"
    )


def _change_checks(kinds: str, has_two: str) -> None:
    for name, condition in ((KIND_CHECK, kinds), (TWO_CHECK, has_two)):
        op.drop_constraint(op.f(name), "examples")
        op.create_check_constraint(op.f(name), "examples", condition)


def _make_anew(*, answers: bool) -> None:
    columns = (
        "manifest_id, position, kind, text, split, sample_id, prompt_id, ids_sha256, real_index, rejected_id,"
        " rejected_sha256"
    )
    chosen = columns if answers else columns.replace("kind", OLD_KIND)
    pair = "kind IN ('pair', 'correct')" if answers else "kind = 'pair'"
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
        sa.Column("rejected_id", BIG, nullable=True),
        sa.Column("rejected_sha256", sa.String(64), nullable=True),
        *((_answer(),) if answers else ()),
        sa.CheckConstraint(KINDS if answers else OLD_KINDS, name=op.f(KIND_CHECK)),
        sa.CheckConstraint("split = 'train'", name=op.f(f"{TWICE}only_train")),
        sa.CheckConstraint(
            "(sample_id IS NULL) = (prompt_id IS NULL) AND (sample_id IS NULL) = (ids_sha256 IS NULL)"
            " AND (sample_id IS NULL) = (real_index IS NOT NULL)",
            name=op.f(f"{TWICE}sample_or_real"),
        ),
        sa.CheckConstraint(_has_two(pair), name=op.f(TWO_CHECK)),
        sa.CheckConstraint("rejected_id <> sample_id", name=op.f("ck_examples_pair_of_different")),
        *((sa.CheckConstraint(ANSWERED, name=op.f(ANSWER_CHECK)),) if answers else ()),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], name="fk_examples_manifest_id"),
        sa.ForeignKeyConstraint(
            ["prompt_id", "split"], ["prompts.id", "prompts.split"], name="fk_examples_prompt_id_split"
        ),
        *(
            sa.ForeignKeyConstraint(
                [side, "prompt_id"], ["samples.id", "samples.prompt_id"], name=f"fk_examples_{side}_prompt_id"
            )
            for side in ("sample_id", "rejected_id")
        ),
        sa.PrimaryKeyConstraint("manifest_id", "position", name="pk_examples"),
    )
    op.execute(f"INSERT INTO examples_anew ({columns}) SELECT {chosen} FROM examples")
    op.drop_table("examples")
    op.rename_table("examples_anew", "examples")
    op.create_index("ix_examples_sample_id", "examples", ["sample_id"], unique=False)
    op.create_index("ix_examples_rejected_id", "examples", ["rejected_id"], unique=False)
    for name, event in REFUSALS_OF_EXAMPLES:
        _refuse_on_sqlite(name, "examples", event, "TRUE")


def _on_postgres() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def _refuse(name: str, table: str, event: str, condition: str) -> None:
    if not _on_postgres():
        _refuse_on_sqlite(name, table, event, condition)
        return
    # A trigger's own condition may ask for no other row there, so each has a function that does.
    op.execute(
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {condition} THEN"
        " RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = TG_NAME;"
        " END IF; RETURN NEW; END $$"
    )
    op.execute(f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()")


def _refuse_on_sqlite(name: str, table: str, event: str, condition: str) -> None:
    op.execute(
        f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN {condition} "
        f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
    )
