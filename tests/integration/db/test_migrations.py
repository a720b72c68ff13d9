"""Migrations go up, down and up, match the models, and happen whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text
from sqlalchemy.exc import DatabaseError

import illume_migrations
from illume_db.migrate import current, downgrade, drift, head, upgrade
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Run
from illume_db.types import Base


def _tables(url: str) -> set[str]:
    engine = open_engine(url)
    names = set(inspect(engine).get_table_names())
    engine.dispose()
    return names


def test_up_down_up(empty_url: str) -> None:
    assert current(empty_url) is None
    upgrade(empty_url)
    assert _tables(empty_url) == {*Base.metadata.tables, "alembic_version"}
    downgrade(empty_url, "base")
    assert _tables(empty_url) == {"alembic_version"}
    upgrade(empty_url)
    assert current(empty_url) == head()
    upgrade(empty_url)
    assert current(empty_url) == head()


def test_the_migrated_schema_is_that_of_the_models(empty_url: str) -> None:
    upgrade(empty_url)
    assert drift(empty_url) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE samples DROP COLUMN staleness", ["column samples.staleness is missing"]),
        ("ALTER TABLE rounds ADD COLUMN mood INTEGER", ["column rounds.mood is unknown"]),
        ("DROP INDEX ix_units_due", ["index ix_units_due of units is missing"]),
        ("CREATE INDEX ix_more ON units (key)", ["index ix_more of units is unknown"]),
        ("CREATE TABLE other (id INTEGER)", ["table other is unknown"]),
        ("DROP TABLE evaluation_items", ["table evaluation_items is missing"]),
        (
            "DROP TRIGGER units_final_state_is_final{on}",
            ["trigger units_final_state_is_final of units is missing"],
        ),
        (
            "ALTER TABLE units DROP CONSTRAINT ck_units_ck_units_kind_known",
            ["check ck_units_kind_known of units is missing"],
        ),
        ("ALTER TABLE units ALTER COLUMN seconds SET NOT NULL", ["nullable of column units.seconds is another"]),
        ("ALTER TABLE workers ALTER COLUMN pid TYPE TEXT", ["type of column workers.pid is another"]),
    ],
)
def test_drift_is_found(empty_url: str, change: str, expected: list[str]) -> None:
    on_postgres = empty_url.startswith("postgresql")
    if not on_postgres and ("CONSTRAINT" in change or "ALTER COLUMN" in change):
        pytest.skip("SQLite cannot change a table in this way")
    upgrade(empty_url)
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text(change.format(on=" ON units" if on_postgres else "")))
    engine.dispose()
    assert drift(empty_url) == expected
    assert current(empty_url) == head()


def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    """The last table of the first revision is already there, so its upgrade fails late."""
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE examples (id INTEGER)"))
    engine.dispose()
    with pytest.raises(DatabaseError, match="examples"):
        upgrade(empty_url)
    assert _tables(empty_url) == {"examples"}


def test_sqlite_is_set_up_for_several_processes(tmp_path: Path) -> None:
    """A reader sees the last commit while a writer is busy; foreign keys hold; a reading engine cannot write."""
    url = f"sqlite:///{tmp_path / 'test.sqlite'}"
    upgrade(url)
    writer, reader = open_engine(url), open_engine(url, read_only=True)
    with writer.connect() as writing, reader.connect() as reading:
        assert writing.scalar(text("PRAGMA journal_mode")) == "wal"
        assert writing.scalar(text("PRAGMA foreign_keys")) == 1
        writing.execute(text("DELETE FROM runs"))
        assert reading.scalar(text("SELECT count(*) FROM runs")) == 0
        with pytest.raises(DatabaseError, match="readonly"):
            reading.execute(text("DELETE FROM runs"))
    with transaction(writer) as session:
        assert session.query(Run).count() == 0
    writer.dispose()
    reader.dispose()


def test_the_last_revision_is_known_without_asking_alembic() -> None:
    location = Path(illume_migrations.__file__ or "").parent
    assert ScriptDirectory(str(location)).get_current_head() == head()
