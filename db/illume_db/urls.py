"""Database URLs: build one for a file, and check the one that a person gives.

Invariants:

- Only `sqlite_url` turns a path into a URL. It escapes the path, so no character of a folder's name has a meaning.
- `checked` returns a URL that `open_engine` understands, or raises an error that never contains a password.
"""

from __future__ import annotations

from pathlib import Path

POSTGRES = "postgresql+psycopg"

EXAMPLE = f"{POSTGRES}://USER@HOST:5432/DATABASE"

_SQLITE = ("sqlite", "sqlite+pysqlite")

_POSTGRES = ("postgres", "postgresql", "pgsql", POSTGRES)

_IN_MEMORY = ("", ":memory:")


def sqlite_url(path: Path) -> str:
    """Return the SQLAlchemy URL of the SQLite file at `path`."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path.absolute())).render_as_string(hide_password=False)


def sqlite_file(url: str) -> Path | None:
    """Return the file of an SQLite URL; None for a database server."""
    from sqlalchemy import make_url

    parts = make_url(url)
    if parts.get_backend_name() != "sqlite":
        return None
    return Path(parts.database or "").absolute()


def checked(url: str) -> str:
    """Return the URL with the driver that we use, and with the absolute path of an SQLite file.

    Raises ValueError with the text to write instead.
    """
    if not url:
        return url
    scheme, separator, rest = url.partition("://")
    name = scheme.lower()
    if not separator:
        raise ValueError(_instead_of_no_url(url))
    if name in _POSTGRES:
        return f"{POSTGRES}://{rest}"
    if name in _SQLITE:
        return _checked_sqlite(url)
    if name.startswith("jdbc:"):
        raise ValueError(f"it is a JDBC address; write {EXAMPLE} instead")
    if name.partition("+")[0] in ("postgres", "postgresql"):
        raise ValueError(f"illume-loop uses another driver of Postgres; begin with {POSTGRES}:// instead")
    if name.partition("+")[0] == "sqlite":
        raise ValueError("illume-loop uses another driver of SQLite; begin with sqlite:/// instead")
    raise ValueError(f"illume-loop keeps its rows in Postgres or SQLite; write {EXAMPLE}, or sqlite:///FILE")


def _checked_sqlite(url: str) -> str:
    from sqlalchemy import make_url

    parts = make_url(url)
    database = parts.database or ""
    if parts.host is not None:
        raise ValueError("it needs three slashes before a relative path and four before an absolute one")
    if database in _IN_MEMORY or parts.query.get("mode") == "memory" or database.startswith("file:"):
        raise ValueError("a run needs a file; write sqlite:///FILE, or leave it empty for one in the run directory")
    return parts.set(database=str(Path(database).absolute())).render_as_string(hide_password=False)


def _instead_of_no_url(text: str) -> str:
    if text.startswith("/") or text.endswith((".sqlite", ".sqlite3", ".db")):
        return f"it is a path; write {sqlite_url(Path(text))} instead"
    if text.lower().startswith("jdbc:"):
        return f"it is a JDBC address; write {EXAMPLE} instead"
    if "=" in text:
        return f"it is a list of parameters; write {EXAMPLE} instead"
    return f"it is no URL; write {EXAMPLE}, or sqlite:///FILE"
