"""The reading commands on a run of the canned backend: tables for people, JSON for scripts, hints on stderr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from illume_db.migrate import downgrade
from illume_loop.cli import database, models, rounds, samples
from illume_loop.cli.runs import settings_for
from illume_loop.errors import DatabaseOutdatedError, NotARunDirectoryError, NotFoundError
from illume_loop.report.headline import headline, share_of
from tests.support.canned_run import small_settings, start

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reading")
    start(small_settings(folder / "base", run__seed=7), folder / "run")
    return folder / "run"


def test_rounds(run_dir: Path, capsys: Captured) -> None:
    rounds.ls(run_dir, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    rounds.ls(run_dir)
    captured = capsys.readouterr()
    for row in rows:
        assert row["candidate"] in captured.out
        assert f"round {row['index']} {row['decision']}: {'; '.join(row['reasons'])}" in captured.out
    assert "next: illume-loop rounds show" in captured.err
    rounds.show(2, run_dir)
    assert rows[1]["manifest_sha256"] in capsys.readouterr().out


def test_samples(run_dir: Path, capsys: Captured) -> None:
    samples.ls(run_dir, limit=5, as_json=True)
    rows = json.loads(capsys.readouterr().out)
    samples.ls(run_dir, limit=5)
    captured = capsys.readouterr()
    assert all(row["prompt"] in captured.out for row in rows)
    assert f"--after {rows[-1]['id']} --limit 5" in captured.err
    samples.show(rows[0]["id"], run_dir)
    assert rows[0]["image_sha256"] in capsys.readouterr().out
    samples.lineage(rows[0]["id"], run_dir)
    assert rows[0]["prompt"] in capsys.readouterr().out


def test_models(run_dir: Path, capsys: Captured) -> None:
    models.ls(run_dir)
    out = capsys.readouterr().out
    assert "v0001" in out
    assert "active" in out
    rows = {row["name"]: row for row in _json(capsys, lambda: models.ls(run_dir, as_json=True))}
    for name, row in rows.items():
        assert share_of(row["heldout"]) in next(line for line in out.splitlines() if line.split()[:1] == [name])
    models.show("v0002", run_dir)
    shown = capsys.readouterr().out
    detail = _json(capsys, lambda: models.show("v0002", run_dir, as_json=True))
    assert headline(detail["heldout"]) in shown
    assert shown.count("heldout") == 1, "one headline, and not each look by itself"
    assert detail["heldout"] in detail["comparisons"]
    assert detail["heldout"]["n"] == max(one["n"] for one in detail["comparisons"])
    assert "checker, guidance 1, temperature 1" in shown
    assert {"suite", "value", "n", "plan_sha256"} == set(detail["evaluations"][0])


def _json(capsys: Captured, command: Callable[[], None]) -> Any:
    command()
    return json.loads(capsys.readouterr().out)


def test_what_is_not_there_is_named(run_dir: Path) -> None:
    with pytest.raises(NotFoundError, match="round '9'"):
        rounds.show(9, run_dir)
    with pytest.raises(NotFoundError, match="sample '999999'"):
        samples.lineage(999_999, run_dir)
    with pytest.raises(NotFoundError, match="model version 'nonsense'"):
        models.show("nonsense", run_dir)


def test_another_directory_is_refused(tmp_path: Path) -> None:
    for command in (rounds.ls, samples.ls, models.ls, database.check, database.upgrade):
        with pytest.raises(NotARunDirectoryError):
            command(tmp_path)


def test_the_settings_of_a_run_are_read_with_it(run_dir: Path, tmp_path: Path) -> None:
    assert settings_for(run_dir).run.seed == 7
    assert settings_for(tmp_path).run.seed == 0


def test_an_older_schema_is_told_and_upgraded(run_dir: Path, capsys: Captured) -> None:
    """It comes last: without its tables the run is gone."""
    url = f"sqlite:///{run_dir / 'loop.sqlite'}"
    rows = json.loads(_json_of_rounds(run_dir, capsys))
    downgrade(url, "base")
    with pytest.raises(DatabaseOutdatedError, match="illume-loop db upgrade"):
        rounds.ls(run_dir)
    with pytest.raises(DatabaseOutdatedError):
        database.check(run_dir, as_json=True)
    assert json.loads(capsys.readouterr().out)["ok"] is False
    database.upgrade(run_dir)
    database.check(run_dir)
    assert len(rows) == 2


def _json_of_rounds(run_dir: Path, capsys: Captured) -> str:
    rounds.ls(run_dir, as_json=True)
    return capsys.readouterr().out
