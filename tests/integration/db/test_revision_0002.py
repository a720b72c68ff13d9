"""The rows of the first revision survive the second one, up, down and up again, and can be worked with."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection, text

from illume_db.leases import finish_unit, lease_unit
from illume_db.migrate import downgrade, drift, upgrade
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Round, Sample, Unit
from illume_db.units import ready_units, stage_counts

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROUND = 1
UNITS: list[tuple[str, str, dict[str, object], str, float | None]] = [
    ("sample", "sample/0", {"first": 0, "stop": 4}, "done", 1.5),
    ("sample", "sample/4", {"first": 4, "stop": 6}, "pending", None),
    ("assess", "assess/0", {"first": 0, "stop": 3}, "pending", None),
    ("assess", "assess/3", {"first": 3, "stop": 6}, "pending", None),
    ("train", "train", {}, "leased", None),
    ("evaluate", "evaluate/heldout/v0001", {"suite": "heldout", "version_id": 1, "count": 24}, "done", 2.5),
    ("evaluate", "evaluate/heldout/v0002", {"suite": "heldout", "version_id": 1, "count": 24}, "dead", None),
]


def _insert(connection: Connection, table: str, **values: Any) -> None:
    names = ", ".join(f'"{name}"' for name in values)
    marks = ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({marks})"), values)


def _fill(connection: Connection) -> None:
    at = CREATED.replace(tzinfo=None).isoformat(" ") + ".000000"
    if connection.dialect.name == "postgresql":
        at += "+00"
    sha256 = "0" * 64
    _insert(connection, "runs", id=1, key="k", name="n", seed=0, settings="{}", created_at=at)
    version = {"number": 1, "state": "active", "sha256": sha256, "num_bytes": 1, "origin": "o"}
    _insert(connection, "model_versions", id=1, run_id=1, created_at=at, **version)
    _insert(connection, "prompts", id=1, run_id=1, split="train", key="key", category="c", text="t", spec="{}")
    counts = {"num_samples": 4, "num_accepted": 0}
    _insert(
        connection, "rounds", id=1, run_id=1, index=1, state="sampling", parent_version_id=1, created_at=at, **counts
    )
    _insert(connection, "round_prompts", round_id=1, position=0, prompt_id=1, split="train")
    sample = {"sample_index": 0, "seed": 7, "image_ids": b"\x02\x01\x00", "image_sha256": sha256}
    _insert(connection, "samples", id=1, round_id=1, prompt_id=1, model_version_id=1, created_at=at, **sample)
    for id_, (kind, key, payload, state, seconds) in enumerate(UNITS, 1):
        held = {"lease_owner": "me" if state == "leased" else None, "error": "e" if state == "dead" else None}
        unit = {"id": id_, "round_id": 1, "kind": kind, "key": key, "payload": json.dumps(payload), "state": state}
        _insert(connection, "units", **unit, seconds=seconds, attempts=0, fencing_token=3, **held)


def _old_rows(url: str) -> list[tuple[Any, ...]]:
    """Units as the first revision has them."""
    engine = open_engine(url)
    query = "SELECT kind, key, payload, state, seconds, attempts, fencing_token, lease_owner FROM units ORDER BY id"
    with engine.connect() as connection:
        rows = [tuple(row) for row in connection.execute(text(query))]
    engine.dispose()
    return [(*row[:2], json.loads(row[2]) if isinstance(row[2], str) else row[2], *row[3:]) for row in rows]


@pytest.fixture
def old_url(empty_url: str) -> str:
    """A database at the first revision with a round on its way."""
    upgrade(empty_url, "0001")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        _fill(connection)
    engine.dispose()
    return empty_url


def test_up_down_up_keeps_the_rows(old_url: str) -> None:
    before = _old_rows(old_url)
    assert [row[2] for row in before] == [payload for _, _, payload, _, _ in UNITS]
    upgrade(old_url)
    assert drift(old_url) == []
    downgrade(old_url, "0001")
    assert _old_rows(old_url) == before
    upgrade(old_url)
    assert drift(old_url) == []


def test_a_round_goes_on_after_the_upgrade(old_url: str) -> None:
    upgrade(old_url)
    engine = open_engine(old_url)
    with transaction(engine) as session:
        round_ = session.get_one(Round, ROUND)
        assert (round_.drawing_version_id, round_.staleness) == (1, 0)
        assert session.get_one(Sample, 1).staleness == 0
        unit = session.get_one(Unit, 2)
        assert (unit.payload, unit.first_row, unit.stop_row, unit.items_total, unit.fencing_token) == ({}, 4, 6, 2, 3)
        assert unit.ready_at == CREATED
        counts = stage_counts(session, ROUND)
        assert [unit.key for unit in ready_units(session, ROUND, "assess", 9)] == ["assess/0"]
    found = {
        kind: (c.num_units, c.num_pending, c.num_leased, c.num_done, c.num_dead, c.items_total, c.items_done, c.seconds)
        for kind, c in counts.items()
    }
    assert found == {
        "sample": (2, 1, 0, 1, 0, 6, 4, 1.5),
        "assess": (2, 2, 0, 0, 0, 6, 0, 0.0),
        "train": (1, 0, 1, 0, 0, 0, 0, 0.0),
        "evaluate": (2, 0, 0, 1, 1, 48, 24, 2.5),
    }
    with transaction(engine) as session:
        lease = lease_unit(session, 2, "me", token=3)
        assert lease is not None
        finish_unit(session, lease, 1.0)
        assert [unit.key for unit in ready_units(session, ROUND, "assess", 9)] == ["assess/0", "assess/3"]
    engine.dispose()
