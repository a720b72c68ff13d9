"""`illume-loop db` on a database server: no run directory is needed, and its password comes from a file."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sqlalchemy import make_url, text

from illume_db.migrate import HEAD, current, head
from illume_db.sessions import open_engine
from tests.support.process import run


def _environment(url: str, folder: Path) -> dict[str, str]:
    password = folder / "password"
    password.write_text("hunter22\n")
    return {
        "ILLUME_STORE__DATABASE_URL": make_url(url).set(password=None).render_as_string(hide_password=False),
        "ILLUME_STORE__DATABASE_URL_PASSWORD_FILE": str(password),
    }


def test_a_database_server_is_migrated_without_a_run(postgres_url: str, tmp_path: Path) -> None:
    environ = _environment(postgres_url, tmp_path)
    before = run("db", "check", cwd=tmp_path, **environ)
    assert (before.code, len(before.sentences)) == (3, 1), before.err
    first, second = (run("db", "upgrade", cwd=tmp_path, **environ) for _ in range(2))
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert "was empty" in first.out
    assert "already there" in second.out
    assert current(postgres_url) == head()
    assert run("db", "check", cwd=tmp_path, **environ).code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"password"}


def test_a_driver_that_is_not_installed_is_told(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['psycopg'] = None")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    environ = {"ILLUME_STORE__DATABASE_URL": "postgresql://me@127.0.0.1/illume", "PYTHONPATH": path}
    ended = run("db", "check", cwd=tmp_path, cold=True, **environ)
    assert ended.code == 2
    (sentence,) = ended.sentences
    assert "a Postgres database needs packages that are not installed" in sentence
    assert "pip install 'illume-loop[service]'" in sentence


def test_a_schema_that_was_changed_by_hand_is_told(postgres_url: str, tmp_path: Path) -> None:
    environ = _environment(postgres_url, tmp_path)
    assert run("db", "upgrade", cwd=tmp_path, **environ).code == 0
    engine = open_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_units_due"))
    engine.dispose()
    ended = run("db", "check", "--json", cwd=tmp_path, **environ)
    assert ended.code == 3
    (sentence,) = ended.sentences
    assert f"is at schema {HEAD} and is not: index ix_units_due of units is missing;" in sentence
    assert json.loads(ended.out)["drift"] == ["index ix_units_due of units is missing"]


def test_a_server_that_is_not_there_is_told_without_its_password(tmp_path: Path) -> None:
    url = "postgresql+psycopg://me:hunter22@127.0.0.1:1/illume?connect_timeout=2"
    ended = run("db", "check", cwd=tmp_path, ILLUME_STORE__DATABASE_URL=url)
    assert ended.code == 3
    assert len(ended.sentences) == 1
    assert "hunter22" not in ended.out + ended.err
