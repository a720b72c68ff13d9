"""A path becomes a URL of just that file, and what people write becomes an address that can be opened."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import make_url

from illume_db import migrate
from illume_db.sessions import open_engine
from illume_db.urls import checked, sqlite_file, sqlite_url

STRANGE = ["my%20run", "feature%2Flogin", "what?", "a#b", "a&b=c", "a::b", "[1]*", "{x}", "a@b:c", "été", "a;b", "a+b"]
POSTGRES = "postgresql+psycopg://me:p%40ss@db:5432/illume?sslmode=require"


@pytest.mark.parametrize("name", STRANGE)
def test_a_folder_of_any_name_has_its_own_database(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "loop.sqlite")
    assert sqlite_file(url) == folder / "loop.sqlite"
    assert checked(url) == url
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert "loop.sqlite" in {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "Postgres", "pgsql"])
def test_addresses_of_postgres_as_hosts_give_them(scheme: str) -> None:
    assert checked(POSTGRES.replace("postgresql+psycopg", scheme)) == POSTGRES


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        ("postgresql+asyncpg://me:secret@h/d", "postgresql+psycopg://"),
        ("postgresql+psycopg2://me:secret@h/d", "postgresql+psycopg://"),
        ("jdbc:postgresql://h/d?password=secret", "postgresql+psycopg://USER@HOST:5432/DATABASE"),
        ("host=h user=u password=secret", "postgresql+psycopg://USER@HOST:5432/DATABASE"),
        ("mysql://me:secret@h/d", "postgresql+psycopg://USER@HOST:5432/DATABASE"),
        ("localhost", "postgresql+psycopg://USER@HOST:5432/DATABASE"),
        ("sqlite://", "sqlite:///FILE"),
        ("sqlite:///:memory:", "sqlite:///FILE"),
        ("sqlite+aiosqlite:///x.db", "sqlite:///"),
        ("sqlite://data/x.db", "three slashes"),
        ("/data/my%20run.db", "sqlite:////data/my%2520run.db"),
    ],
)
def test_another_address_is_refused_with_what_to_write(url: str, instead: str) -> None:
    with pytest.raises(ValueError, match=r"write|begin|needs") as refused:
        checked(url)
    assert instead in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_relative_file_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_url(checked("sqlite:///some.db")).database == str(tmp_path / "some.db")


def test_revisions_are_found_below_a_folder_with_a_percent_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the package is installed below such a folder."""
    from importlib.util import find_spec

    spec = find_spec("illume_migrations")
    assert spec is not None
    assert spec.origin is not None
    (tmp_path / "100%s").mkdir()
    (tmp_path / "100%s" / "illume_migrations").symlink_to(Path(spec.origin).parent)
    spec.origin = str(tmp_path / "100%s" / "illume_migrations" / "__init__.py")
    monkeypatch.setattr(migrate, "find_spec", lambda name: spec)
    url = sqlite_url(tmp_path / "loop.sqlite")
    migrate.upgrade(url)
    assert migrate.current(url) == migrate.head()
    open_engine(url).dispose()
