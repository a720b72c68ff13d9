"""Create the first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
STATE = sa.String(16)
TIME = sa.DateTime(timezone=True)

# What no program may do, whatever its bugs: (trigger, table, event, condition on OLD and NEW).
REFUSALS = (
    (
        "rounds_terminal_state_is_final",
        "rounds",
        "UPDATE",
        "OLD.state IN ('promoted', 'rejected', 'failed', 'cancelled') AND NEW.state <> OLD.state",
    ),
    ("manifests_are_immutable", "manifests", "UPDATE", "TRUE"),
    ("examples_are_immutable", "examples", "UPDATE", "TRUE"),
    ("examples_are_kept", "examples", "DELETE", "TRUE"),
    ("gate_decisions_are_immutable", "gate_decisions", "UPDATE", "TRUE"),
)


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", BIG, nullable=False),
        sa.Column("key", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("seed", BIG, nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_runs"),
        sa.UniqueConstraint("key", name="uq_runs_key"),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", BIG, nullable=False),
        sa.Column("run_id", BIG, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("parent_id", BIG, nullable=True),
        sa.Column("state", STATE, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("num_bytes", BIG, nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "state IN ('candidate', 'active', 'rejected', 'retired')", name="ck_model_versions_state_known"
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["model_versions.id"], name="fk_model_versions_parent_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_model_versions_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_model_versions"),
        sa.UniqueConstraint("run_id", "number", name="uq_model_versions_run_id_number"),
    )
    op.create_index(
        "uq_model_versions_one_active",
        "model_versions",
        ["run_id"],
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
    op.create_table(
        "prompts",
        sa.Column("id", BIG, nullable=False),
        sa.Column("run_id", BIG, nullable=False),
        sa.Column("split", STATE, nullable=False),
        sa.Column("key", sa.String(256), nullable=False),
        sa.Column("category", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("spec", JSON, nullable=False),
        sa.CheckConstraint("split IN ('train', 'heldout', 'probe')", name="ck_prompts_split_known"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_prompts_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_prompts"),
        sa.UniqueConstraint("id", "split", name="uq_prompts_id_split"),
        sa.UniqueConstraint("run_id", "text", name="uq_prompts_run_id_text"),
    )
    op.create_table(
        "evaluations",
        sa.Column("id", BIG, nullable=False),
        sa.Column("model_version_id", BIG, nullable=False),
        sa.Column("suite", STATE, nullable=False),
        sa.Column("plan_sha256", sa.String(64), nullable=False),
        sa.Column("num_items", sa.Integer(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("suite IN ('heldout', 'understanding', 'diversity')", name="ck_evaluations_suite_known"),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name="fk_evaluations_model_version_id"),
        sa.PrimaryKeyConstraint("id", name="pk_evaluations"),
        sa.UniqueConstraint(
            "model_version_id", "suite", "plan_sha256", name="uq_evaluations_model_version_id_suite_plan_sha256"
        ),
    )
    op.create_table(
        "rounds",
        sa.Column("id", BIG, nullable=False),
        sa.Column("run_id", BIG, nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("parent_version_id", BIG, nullable=False),
        sa.Column("candidate_version_id", BIG, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("num_samples", sa.Integer(), nullable=False),
        sa.Column("num_accepted", sa.Integer(), nullable=False),
        sa.Column("judge_auc", sa.Double(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=True),
        sa.CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="ck_rounds_failed_says_why"),
        sa.CheckConstraint(
            "state IN ('planned', 'sampling', 'assessing', 'curating', 'training', 'gating',"
            " 'promoted', 'rejected', 'failed', 'cancelled')",
            name="ck_rounds_state_known",
        ),
        sa.CheckConstraint('"index" >= 1', name="ck_rounds_index_from_one"),
        sa.ForeignKeyConstraint(["candidate_version_id"], ["model_versions.id"], name="fk_rounds_candidate_version_id"),
        sa.ForeignKeyConstraint(["parent_version_id"], ["model_versions.id"], name="fk_rounds_parent_version_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_rounds_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_rounds"),
        sa.UniqueConstraint("candidate_version_id", name="uq_rounds_candidate_version_id"),
        sa.UniqueConstraint("run_id", "index", name="uq_rounds_run_id_index"),
    )
    op.create_table(
        "evaluation_items",
        sa.Column("evaluation_id", BIG, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("prompt_id", BIG, nullable=True),
        sa.Column("image_sha256", sa.String(64), nullable=True),
        sa.ForeignKeyConstraint(["evaluation_id"], ["evaluations.id"], name="fk_evaluation_items_evaluation_id"),
        sa.ForeignKeyConstraint(["prompt_id"], ["prompts.id"], name="fk_evaluation_items_prompt_id"),
        sa.PrimaryKeyConstraint("evaluation_id", "position", name="pk_evaluation_items"),
    )
    op.create_table(
        "events",
        sa.Column("id", BIG, nullable=False),
        sa.Column("run_id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=True),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_events_round_id"),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_events_run_id"),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_run_id", "events", ["run_id"], unique=False)
    op.create_table(
        "gate_decisions",
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("decision", STATE, nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("numbers", JSON, nullable=False),
        sa.Column("decided_at", TIME, nullable=False),
        sa.CheckConstraint("decision IN ('promoted', 'rejected')", name="ck_gate_decisions_decision_known"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_gate_decisions_round_id"),
        sa.PrimaryKeyConstraint("round_id", name="pk_gate_decisions"),
    )
    op.create_table(
        "manifests",
        sa.Column("id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("num_rows", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_manifests_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_manifests"),
        sa.UniqueConstraint("round_id", name="uq_manifests_round_id"),
    )
    op.create_table(
        "round_prompts",
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("prompt_id", BIG, nullable=False),
        sa.Column("split", STATE, nullable=False),
        sa.CheckConstraint("split = 'train'", name="ck_round_prompts_only_train"),
        sa.ForeignKeyConstraint(
            ["prompt_id", "split"], ["prompts.id", "prompts.split"], name="fk_round_prompts_prompt_id_split"
        ),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_round_prompts_round_id"),
        sa.PrimaryKeyConstraint("round_id", "position", name="pk_round_prompts"),
        sa.UniqueConstraint("round_id", "prompt_id", name="uq_round_prompts_round_id_prompt_id"),
    )
    op.create_table(
        "units",
        sa.Column("id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("kind", STATE, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("state", STATE, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("fencing_token", BIG, nullable=False),
        sa.Column("lease_owner", sa.String(128), nullable=True),
        sa.Column("lease_expires_at", TIME, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.CheckConstraint("(state = 'leased') = (lease_owner IS NOT NULL)", name="ck_units_leased_has_owner"),
        sa.CheckConstraint("kind IN ('sample', 'assess', 'train', 'evaluate')", name="ck_units_kind_known"),
        sa.CheckConstraint("state <> 'dead' OR error IS NOT NULL", name="ck_units_dead_says_why"),
        sa.CheckConstraint("state IN ('pending', 'leased', 'done', 'dead')", name="ck_units_state_known"),
        sa.ForeignKeyConstraint(["round_id"], ["rounds.id"], name="fk_units_round_id"),
        sa.PrimaryKeyConstraint("id", name="pk_units"),
        sa.UniqueConstraint("round_id", "key", name="uq_units_round_id_key"),
    )
    op.create_table(
        "samples",
        sa.Column("id", BIG, nullable=False),
        sa.Column("round_id", BIG, nullable=False),
        sa.Column("prompt_id", BIG, nullable=False),
        sa.Column("sample_index", sa.Integer(), nullable=False),
        sa.Column("seed", BIG, nullable=False),
        sa.Column("model_version_id", BIG, nullable=False),
        sa.Column("image_ids", sa.LargeBinary(), nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name="fk_samples_model_version_id"),
        sa.ForeignKeyConstraint(
            ["round_id", "prompt_id"],
            ["round_prompts.round_id", "round_prompts.prompt_id"],
            name="fk_samples_round_id_prompt_id",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_samples"),
        sa.UniqueConstraint("id", "prompt_id", name="uq_samples_id_prompt_id"),
        sa.UniqueConstraint("round_id", "prompt_id", "sample_index", name="uq_samples_round_id_prompt_id_sample_index"),
    )
    op.create_table(
        "assessments",
        sa.Column("id", BIG, nullable=False),
        sa.Column("sample_id", BIG, nullable=False),
        sa.Column("assessor", STATE, nullable=False),
        sa.Column("model_version_id", BIG, nullable=True),
        sa.Column("state", STATE, nullable=False),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("failed_criteria", JSON, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.CheckConstraint("(state = 'ok') = (score IS NOT NULL)", name="ck_assessments_only_ok_is_scored"),
        sa.CheckConstraint(
            "assessor IN ('self', 'checker', 'frozen', 'teacher', 'human')", name="ck_assessments_assessor_known"
        ),
        sa.CheckConstraint("state IN ('ok', 'abstained', 'failed')", name="ck_assessments_state_known"),
        sa.ForeignKeyConstraint(["model_version_id"], ["model_versions.id"], name="fk_assessments_model_version_id"),
        sa.ForeignKeyConstraint(["sample_id"], ["samples.id"], name="fk_assessments_sample_id"),
        sa.PrimaryKeyConstraint("id", name="pk_assessments"),
        sa.UniqueConstraint(
            "sample_id", "assessor", "model_version_id", name="uq_assessments_sample_id_assessor_model_version_id"
        ),
    )
    op.create_index(
        "uq_assessments_without_model",
        "assessments",
        ["sample_id", "assessor"],
        unique=True,
        sqlite_where=sa.text("model_version_id IS NULL"),
        postgresql_where=sa.text("model_version_id IS NULL"),
    )
    op.create_table(
        "examples",
        sa.Column("manifest_id", BIG, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", STATE, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("split", STATE, nullable=False),
        sa.Column("sample_id", BIG, nullable=True),
        sa.Column("prompt_id", BIG, nullable=True),
        sa.Column("ids_sha256", sa.String(64), nullable=True),
        sa.Column("real_index", sa.Integer(), nullable=True),
        sa.CheckConstraint("kind IN ('draw', 'read')", name="ck_examples_kind_known"),
        sa.CheckConstraint("split = 'train'", name="ck_examples_only_train"),
        sa.CheckConstraint(
            "(sample_id IS NULL) = (prompt_id IS NULL) AND (sample_id IS NULL) = (ids_sha256 IS NULL)"
            " AND (sample_id IS NULL) = (real_index IS NOT NULL)",
            name="ck_examples_sample_or_real",
        ),
        sa.ForeignKeyConstraint(["manifest_id"], ["manifests.id"], name="fk_examples_manifest_id"),
        sa.ForeignKeyConstraint(
            ["prompt_id", "split"], ["prompts.id", "prompts.split"], name="fk_examples_prompt_id_split"
        ),
        sa.ForeignKeyConstraint(
            ["sample_id", "prompt_id"], ["samples.id", "samples.prompt_id"], name="fk_examples_sample_id_prompt_id"
        ),
        sa.PrimaryKeyConstraint("manifest_id", "position", name="pk_examples"),
    )
    op.create_index("ix_examples_sample_id", "examples", ["sample_id"], unique=False)
    for name, table, event, condition in REFUSALS:
        _refuse(name, table, event, condition)


def downgrade() -> None:
    for name, table, _, _ in reversed(REFUSALS):
        on_table = f" ON {table}" if _on_postgres() else ""
        op.execute(f"DROP TRIGGER {name}{on_table}")
    if _on_postgres():
        op.execute("DROP FUNCTION illume_refuse()")
    op.drop_index("ix_examples_sample_id", table_name="examples")
    op.drop_table("examples")
    op.drop_index(
        "uq_assessments_without_model",
        table_name="assessments",
        sqlite_where=sa.text("model_version_id IS NULL"),
        postgresql_where=sa.text("model_version_id IS NULL"),
    )
    op.drop_table("assessments")
    op.drop_table("samples")
    op.drop_table("units")
    op.drop_table("round_prompts")
    op.drop_table("manifests")
    op.drop_table("gate_decisions")
    op.drop_index("ix_events_run_id", table_name="events")
    op.drop_table("events")
    op.drop_table("evaluation_items")
    op.drop_table("rounds")
    op.drop_table("evaluations")
    op.drop_table("prompts")
    op.drop_index(
        "uq_model_versions_one_active",
        table_name="model_versions",
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    )
    op.drop_table("model_versions")
    op.drop_table("runs")


def _on_postgres() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def _refuse(name: str, table: str, event: str, condition: str) -> None:
    if _on_postgres():
        op.execute(
            "CREATE OR REPLACE FUNCTION illume_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION USING ERRCODE = 'integrity_constraint_violation', MESSAGE = TG_NAME; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN ({condition}) "
            "EXECUTE FUNCTION illume_refuse()"
        )
    else:
        op.execute(
            f"CREATE TRIGGER {name} BEFORE {event} ON {table} FOR EACH ROW WHEN {condition} "
            f"BEGIN SELECT RAISE(ABORT, '{name}'); END"
        )
