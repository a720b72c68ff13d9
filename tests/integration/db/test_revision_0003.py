"""Manifests of the second revision survive the third one, up, down and up again; pairs go down as rows to draw."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from illume_db.curation import examples_of, pairs_before
from illume_db.manifests import NewExample, add_manifest
from illume_db.migrate import downgrade, drift, upgrade
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Example, Manifest

SHA256 = "0" * 64
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OLD_COLUMNS = "manifest_id, position, kind, text, split, sample_id, prompt_id, ids_sha256, real_index"


def _insert(connection: Connection, table: str, **values: Any) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def fill(connection: Connection, settings: str = "{}") -> None:
    """Two rounds with three samples of one prompt; the first has a manifest of two rows."""
    at = "2026-01-02 03:04:05.000000" + ("+00" if connection.dialect.name == "postgresql" else "")
    _insert(connection, "runs", id=1, key="k", name="n", seed=0, settings=settings, created_at=at)
    version = {"number": 1, "state": "active", "sha256": SHA256, "num_bytes": 1, "origin": "o"}
    _insert(connection, "model_versions", id=1, run_id=1, created_at=at, **version)
    for id_, split, words in ((1, "train", "t"), (2, "heldout", "h")):
        _insert(connection, "prompts", id=id_, run_id=1, split=split, key=words, category="c", text=words, spec="{}")
    for index in (1, 2):
        versions = {"parent_version_id": 1, "drawing_version_id": 1}
        round_ = {"id": index, "run_id": 1, "index": index, "state": "training", "num_samples": 3, "num_accepted": 1}
        _insert(connection, "rounds", **round_, **versions, created_at=at)
        _insert(connection, "round_prompts", round_id=index, position=0, prompt_id=1, split="train")
    for id_ in (1, 2, 3):
        sample = {"sample_index": id_, "seed": 7, "image_ids": b"\x02\x01\x00", "image_sha256": SHA256}
        _insert(connection, "samples", id=id_, round_id=1, prompt_id=1, model_version_id=1, created_at=at, **sample)
    _insert(connection, "manifests", id=50, round_id=1, sha256=SHA256, num_rows=2, created_at=at)
    row = {"manifest_id": 50, "text": "t", "split": "train"}
    _insert(connection, "examples", **row, position=0, kind="draw", sample_id=1, prompt_id=1, ids_sha256=SHA256)
    _insert(connection, "examples", **row, position=1, kind="read", real_index=4)


@pytest.fixture
def old_url(empty_url: str) -> str:
    """A database at the second revision with a manifest."""
    upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    engine.dispose()
    return empty_url


def _rows(url: str) -> list[tuple[Any, ...]]:
    engine = open_engine(url)
    with engine.connect() as connection:
        query = f"SELECT {OLD_COLUMNS} FROM examples ORDER BY manifest_id, position"
        rows = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return rows


def test_up_down_up_keeps_the_rows_and_what_protects_them(old_url: str) -> None:
    before = _rows(old_url)
    assert len(before) == 2
    for step in (upgrade, lambda url: downgrade(url, "0002"), upgrade):
        step(old_url)
        assert _rows(old_url) == before
        engine = open_engine(old_url)
        for change in ("UPDATE examples SET text = 'other'", "DELETE FROM examples"):
            with engine.connect() as connection, pytest.raises(DBAPIError, match="examples_are_"):
                connection.execute(text(change))
        heldout = f"INSERT INTO examples ({OLD_COLUMNS}) VALUES (50, 9, 'draw', 't', 'train', 1, 2, '{SHA256}', NULL)"
        with engine.connect() as connection, pytest.raises(DBAPIError, match=r"(?i)foreign key|worded_as"):
            connection.execute(text(heldout))
        engine.dispose()
    assert drift(old_url) == []


def test_a_run_of_the_revision_before_goes_on_with_pairs(old_url: str) -> None:
    upgrade(old_url)
    engine = open_engine(old_url)
    with transaction(engine) as session:
        old = session.get_one(Manifest, 50)
        assert old.counts == {}
        assert [(row.kind, row.rejected) for row in examples_of(session, 50)] == [("draw", None), ("read", None)]
        assert pairs_before(session, 1, 2) == []
        pairs = [NewExample("pair", "t", 1, 1, SHA256, rejected_id=id_, rejected_sha256=SHA256) for id_ in (3, 2)]
        manifest = add_manifest(session, 2, SHA256, pairs, at=NOW, counts={"pairs": 2})
        examples = examples_of(session, manifest.id)
        assert [(row.sample and row.sample.sample_id, row.rejected and row.rejected.sample_id) for row in examples] == [
            (1, 3),
            (1, 2),
        ]
        assert [(c.sample_id, r.sample_id) for c, r in pairs_before(session, 1, 3)] == [(1, 2), (1, 3)]
        assert pairs_before(session, 1, 2) == [], "a round's own pairs are not those of earlier rounds"
        assert np.array_equal(examples[0].rejected.image_ids if examples[0].rejected else [], [1])
    engine.dispose()
    downgrade(old_url, "0002")
    assert sorted(row[2] for row in _rows(old_url)) == ["draw", "draw", "draw", "read"]
    upgrade(old_url)
    assert drift(old_url) == []
    engine = open_engine(old_url)
    with transaction(engine) as session:
        assert session.query(Example).count() == 4
    engine.dispose()
