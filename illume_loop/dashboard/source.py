"""What the dashboard shows: the runs of one database, and the images of one artifact store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session

from illume_db.migrate import current, head
from illume_db.sessions import open_engine, transaction
from illume_loop.dashboard.thumbnails import Thumbnails
from illume_loop.errors import DatabaseOutdatedError, NotARunDirectoryError
from illume_loop.loop.run_directory import MARKER, open_stores, run_database_url, stored_settings
from illume_loop.settings import Settings


class Source:
    """Sessions for reading and for writing, and images."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        """Raises NotARunDirectoryError where there is neither a run nor a database that was set, ConflictError where
        the database does not know the directory's run, and DatabaseOutdatedError."""
        self.run_dir = run_dir
        given = settings.store.database_url
        if not given and not (run_dir / MARKER).exists():
            raise NotARunDirectoryError(path=run_dir)
        # It refuses a database that does not know the directory's run.
        stored_settings(run_dir, given)
        url = run_database_url(run_dir, given)
        found, expected = current(url), head()
        if found != expected:
            raise DatabaseOutdatedError(found=found or "(none)", expected=expected)
        self._reading = open_engine(url, read_only=True)
        self._writing = open_engine(url)
        self.images, _ = open_stores(run_dir, settings.store.artifacts_url)
        self.thumbnails = Thumbnails(self.images)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that cannot write on SQLite, and is never committed."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session that is committed when the block ends."""
        with transaction(self._writing) as session:
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._reading.dispose()
        self._writing.dispose()
