"""The directory names a run and its database; the run's row has the settings, and no other database goes on with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from illume_db.migrate import upgrade
from illume_db.runs import last_events, run_row
from illume_db.sessions import open_engine
from illume_db.tables import Run
from illume_db.urls import sqlite_url
from illume_loop.cli.runs import settings_for
from illume_loop.cli.watch import take_snapshot
from illume_loop.dashboard.source import Source
from illume_loop.errors import (
    DatabasePasswordError,
    NotARunDirectoryError,
    OtherDatabaseError,
    OtherStoreError,
    RunForgottenError,
)
from illume_loop.loop import run_directory
from illume_loop.loop.run_directory import open_run, read_marker, stored_settings
from illume_loop.settings import load_settings
from tests.support.canned_run import small_settings, start, table


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    start(small_settings(folder / "base", run__rounds=1), folder / "run")
    return folder


@pytest.fixture
def run_dir(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy" / "run"


def _settings(run_dir: Path, made: Path, **values: object) -> Any:
    return small_settings(made / "base", **{"run__rounds": 1} | values)


def _rows(run_dir: Path) -> dict[str, Any]:
    with open_run(run_dir) as run:
        found: dict[str, Any] = run_row(run.session, run.run_id)["settings"]
        return found


def test_the_directory_holds_no_settings(run_dir: Path) -> None:
    content = json.loads((run_dir / "run.json").read_text())
    assert {key: content[key] for key in ("format", "database", "begun")} == {
        "format": 2,
        "database": "",
        "begun": True,
    }
    assert content.keys() == {"format", "key", "database", "begun"}


@pytest.mark.parametrize("is_migrated", [True, False])
def test_another_database_is_refused_and_not_written_to(
    run_dir: Path, made: Path, tmp_path: Path, is_migrated: bool
) -> None:
    other = sqlite_url(tmp_path / "other.sqlite")
    if is_migrated:
        upgrade(other)
    settings = _settings(run_dir, made, store__database_url=other)
    with pytest.raises(OtherDatabaseError, match=r"copy/run/loop\.sqlite, and .*other\.sqlite does not know it"):
        start(settings, run_dir)
    with pytest.raises(OtherDatabaseError), open_run(run_dir, database_url=other):
        pass
    with pytest.raises(OtherDatabaseError):
        Source(settings, run_dir)
    if is_migrated:
        with open_engine(other).connect() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM runs").scalar() == 0
    else:
        assert not (tmp_path / "other.sqlite").exists()
    assert len(table(run_dir)) == 1


def test_a_run_moved_to_postgres_by_a_variable_is_refused(
    run_dir: Path, made: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(postgres_url)
    with pytest.raises(OtherDatabaseError, match=r"loop\.sqlite, and postgresql\+psycopg"):
        start(_settings(run_dir, made, store__database_url=postgres_url), run_dir)
    monkeypatch.setenv("ILLUME_STORE__DATABASE_URL", postgres_url)
    with pytest.raises(OtherDatabaseError):
        settings_for(run_dir)


def test_a_run_in_postgres_is_found_without_a_variable_and_refused_elsewhere(
    made: Path, tmp_path: Path, postgres_url: str
) -> None:
    run_dir = tmp_path / "run"
    settings = small_settings(made / "base", run__rounds=1, store__database_url=postgres_url)
    start(settings, run_dir)
    assert [row["index"] for row in table(run_dir)] == [1]
    assert settings_for(run_dir).store.database_url == read_marker(run_dir).database
    with pytest.raises(OtherDatabaseError):
        start(_settings(run_dir, made, store__database_url=sqlite_url(run_dir / "loop.sqlite")), run_dir)
    # A start whose settings name no database goes on where the run is.
    start(_settings(run_dir, made, run__rounds=2), run_dir)
    assert len(table(run_dir)) == 2
    assert not (run_dir / "loop.sqlite").exists()


def test_a_database_that_was_emptied_is_told(run_dir: Path, made: Path) -> None:
    for path in run_dir.glob("loop.sqlite*"):
        path.unlink()
    for given in ("", sqlite_url(run_dir / "loop.sqlite")):
        with pytest.raises(RunForgottenError, match=r"no longer knows the run in .*copy/run: it was emptied"):
            start(_settings(run_dir, made, store__database_url=given), run_dir)
    assert not list(run_dir.glob("loop.sqlite*"))
    upgrade(sqlite_url(run_dir / "loop.sqlite"))
    with pytest.raises(RunForgottenError):
        start(_settings(run_dir, made), run_dir)
    with pytest.raises(RunForgottenError), open_run(run_dir):
        pass


def test_a_password_is_not_kept_and_is_asked_for(run_dir: Path) -> None:
    content = json.loads((run_dir / "run.json").read_text())
    hidden = "postgresql+psycopg://me:***@db/illume"
    (run_dir / "run.json").write_text(json.dumps(content | {"database": hidden}))
    with pytest.raises(DatabasePasswordError, match=r"postgresql\+psycopg://me:\*\*\*@db/illume, whose password"):
        settings_for(run_dir)
    with run_directory.locked(run_dir) as directory:
        run_directory.mark(directory, hidden.replace("***", "hunter22"), begun=True)
    assert "hunter22" not in (run_dir / "run.json").read_text()


def test_a_directory_of_an_older_release_goes_on(run_dir: Path, made: Path) -> None:
    key = read_marker(run_dir).key
    old = {"format": 1, "key": key, "settings": _rows(run_dir) | {"run": {"rounds": 9}}}
    (run_dir / "run.json").write_text(json.dumps(old))
    assert settings_for(run_dir).run.rounds == 1, "the row's"
    start(_settings(run_dir, made, run__rounds=2), run_dir)
    assert len(table(run_dir)) == 2
    assert (read_marker(run_dir).key, json.loads((run_dir / "run.json").read_text())["format"]) == (key, 2)


def test_a_start_killed_before_the_row_was_there_begins_once_more(made: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    with run_directory.locked(run_dir) as directory:
        run_directory.mark(directory, sqlite_url(run_dir / "loop.sqlite"), begun=False)
    key = directory.key
    with pytest.raises(NotARunDirectoryError), open_run(run_dir):
        pass
    assert stored_settings(run_dir) is None
    start(_settings(run_dir, made), run_dir)
    assert (read_marker(run_dir).key, read_marker(run_dir).begun) == (key, True)
    assert len(table(run_dir)) == 1


def test_a_moved_directory_is_the_same_run(run_dir: Path, made: Path, tmp_path: Path) -> None:
    run_dir.rename(tmp_path / "else%20where?")
    start(_settings(run_dir, made, run__rounds=2), tmp_path / "else%20where?")
    assert len(table(tmp_path / "else%20where?")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "else%20where?"]


def test_a_variable_that_needs_the_settings_of_the_run_is_read_with_them(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ILLUME_SAMPLING__SAMPLES_PER_PROMPT", "1")
    monkeypatch.setenv("ILLUME_CURATE__KEEP_PER_PROMPT", "1")
    assert settings_for(run_dir).sampling.samples_per_prompt == 1
    with monkeypatch.context() as alone:
        alone.delenv("ILLUME_CURATE__KEEP_PER_PROMPT")
        with open_run(run_dir, writing=True) as run:
            row = run.session.get_one(Run, run.run_id)
            row.settings = row.settings | {"curate": row.settings["curate"] | {"keep_per_prompt": 1}}
            run.session.commit()
        # The default of the second one does not go with the first: the run's does.
        assert settings_for(run_dir).curate.keep_per_prompt == 1


def test_what_a_start_changes_is_in_the_row_and_in_the_event_log(run_dir: Path, made: Path) -> None:
    start(_settings(run_dir, made), run_dir, rounds=2)
    assert _rows(run_dir)["run"]["rounds"] == 2
    assert settings_for(run_dir).run.rounds == 2
    with open_run(run_dir) as run:
        assert take_snapshot(run).num_rounds == 2
        lines = [event["message"] for event in last_events(run.session, run.run_id, 50)]
    assert "settings changed: run.rounds from 1 to 2" in lines
    # Fewer than there are: the run keeps what it has, so that no page shows round 2 of 1.
    start(_settings(run_dir, made), run_dir, rounds=1)
    assert _rows(run_dir)["run"]["rounds"] == 2


def test_another_artifact_store_is_refused_until_it_has_the_files(run_dir: Path, made: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "artifacts"
    settings = _settings(run_dir, made, run__rounds=2, store__artifacts_url=str(elsewhere))
    with pytest.raises(OtherStoreError, match=f"{elsewhere} has no checkpoint of its active version"):
        start(settings, run_dir)
    for name in ("checkpoints", "images"):
        shutil.copytree(run_dir / name, elsewhere / name)
    start(settings, run_dir)
    assert len(table(run_dir)) == 2
    assert load_settings(stored=stored_settings(run_dir), environ={}).store.artifacts_url == str(elsewhere)
