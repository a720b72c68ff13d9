"""Edits go down as what the revision before knows; what was there before them survives, up, down and up again."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from illume_db.evaluations import NewItem, add_evaluation
from illume_db.manifests import NewExample, add_manifest
from illume_db.migrate import downgrade, drift, upgrade
from illume_db.sessions import open_engine, transaction
from tests.integration.db.test_revision_0003 import fill

SHA256 = "0" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE = "0008"


def _found(engine: Engine) -> tuple[list[str], list[str], int]:
    """Kinds of rows, suites, and how many items the evaluations have."""
    with engine.connect() as connection:
        kinds = connection.scalars(text("SELECT kind FROM examples ORDER BY COALESCE(sample_id, 5), position")).all()
        suites = connection.scalars(text("SELECT suite FROM evaluations ORDER BY id")).all()
        items = connection.scalar(text("SELECT count(*) FROM evaluation_items"))
    return list(kinds), list(suites), items or 0


def test_edits_go_down_as_rows_to_draw(empty_url: str) -> None:
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    upgrade(empty_url, BEFORE)
    with engine.begin() as connection:
        # Written as that revision knows it: the columns of today came later.
        connection.execute(
            text(
                "INSERT INTO evaluations (model_version_id, suite, plan_sha256, num_items, value, created_at)"
                f" VALUES (1, 'heldout', '{SHA256}', 1, 1.0, '2026-01-01')"
            )
        )
        passed = "SELECT id, 0, TRUE FROM evaluations"
        connection.execute(text(f"INSERT INTO evaluation_items (evaluation_id, position, passed) {passed}"))
    upgrade(empty_url)
    words = "make it blue: it"
    with transaction(engine) as session:
        # Those that `fill` made have numbers of their own, which Postgres would give out again.
        prompt_id = 7
        session.execute(
            text(
                "INSERT INTO prompts (id, run_id, split, key, category, text, spec, instruction, target, source_sha256)"
                f" VALUES ({prompt_id}, 1, 'train', 'k', 'c', '{words}', '{{}}', 'make it blue', 'blue', '{SHA256}')"
            )
        )
        session.execute(text(f"INSERT INTO round_prompts VALUES (2, 1, {prompt_id}, 'train')"))
        copied = "round_id, prompt_id, sample_index, seed, model_version_id, image_ids, image_sha256, created_at"
        session.execute(
            text(
                f"INSERT INTO samples (id, {copied}) SELECT 9, 2, {prompt_id}, "
                f"{copied.removeprefix('round_id, prompt_id, ')} FROM samples WHERE id = 1"
            )
        )
        add_manifest(session, 2, SHA256, [NewExample("edit", words, 9, prompt_id, SHA256)], at=NOW)
        items = [NewItem(True)]
        add_evaluation(session, 1, suite="editing", plan_sha256=SHA256, num_items=1, value=1.0, items=items, at=NOW)
    assert _found(engine) == (["draw", "read", "edit"], ["heldout", "editing"], 2)
    for step in (lambda url: downgrade(url, BEFORE), upgrade):
        engine.dispose()
        step(empty_url)
        assert _found(engine) == (["draw", "read", "draw"], ["heldout"], 1)
        for change in ("UPDATE examples SET text = 'other'", "DELETE FROM examples"):
            with engine.connect() as connection, pytest.raises(DBAPIError, match="examples_are_"):
                connection.execute(text(change))
    engine.dispose()
    assert drift(empty_url) == []
