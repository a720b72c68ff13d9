"""Assessments among the rows of a manifest go down as what the revision before knows, and stay protected."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from illume_db.manifests import NewExample, add_manifest
from illume_db.migrate import downgrade, drift, upgrade
from illume_db.sessions import open_engine, transaction
from tests.integration.db.test_revision_0003 import fill

SHA256 = "0" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)
BEFORE = "0005"


def _kinds(url: str) -> list[tuple[str, int | None]]:
    engine = open_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT kind, rejected_id FROM examples ORDER BY manifest_id, position"))
        found = [(kind, rejected) for kind, rejected in rows]
    engine.dispose()
    return found


def test_assessments_go_down_as_rows_that_are_known_there(empty_url: str) -> None:
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    upgrade(empty_url)
    rows = [NewExample(kind, "t", 1, 1, SHA256, answer="{}") for kind in ("assess", "correct")]
    rows[1] = NewExample("correct", "t", 1, 1, SHA256, rejected_id=2, rejected_sha256=SHA256, answer="{}")
    with transaction(engine) as session:
        add_manifest(session, 2, SHA256, rows, at=NOW)
    engine.dispose()
    old = [("draw", None), ("read", None)]
    assert sorted(_kinds(empty_url), key=str) == sorted([*old, ("assess", None), ("correct", 2)], key=str)
    for step in (lambda url: downgrade(url, BEFORE), upgrade):
        step(empty_url)
        assert sorted(_kinds(empty_url), key=str) == sorted([*old, ("read", None), ("pair", 2)], key=str)
        engine = open_engine(empty_url)
        for change in ("UPDATE examples SET text = 'other'", "DELETE FROM examples"):
            with engine.connect() as connection, pytest.raises(DBAPIError, match="examples_are_"):
                connection.execute(text(change))
        engine.dispose()
    assert drift(empty_url) == []
