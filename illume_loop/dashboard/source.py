"""The data of the dashboard: the runs of one database, and the images of one artifact store."""

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
    """The database sessions and the images of a dashboard."""

    def __init__(self, settings: Settings, run_dir: Path) -> None:
        """Open the database and the image store.

        Raises NotARunDirectoryError if the directory holds no run and no database is set, ConflictError if the
        database does not know the directory's run, and DatabaseOutdatedError.
        """
        self.run_dir = run_dir
        given = settings.store.database_url
        if not given and not (run_dir / MARKER).exists():
            raise NotARunDirectoryError(path=run_dir)
        # This call raises if the database does not know the directory's run.
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
        """Open a session for reading: it is never committed, and SQLite refuses its writes."""
        with Session(self._reading, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session for writing: it is committed when the block ends."""
        with transaction(self._writing) as session:
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._reading.dispose()
        self._writing.dispose()
