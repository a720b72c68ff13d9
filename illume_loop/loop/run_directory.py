"""The directory of a run: its marker, its lock, and how to open it.

    run.json       names the run (its key) and the database that has its row; written atomically
    lock           held by the one process that works on the run
    loop.sqlite    the database, unless settings name another
    images/, checkpoints/    the artifacts, unless settings name another place
    tmp/           half-made checkpoints; emptied when a process takes the lock

Invariants:

- At most one process works on a run directory. The lock is the kernel's, so it ends with its process, however that
  ends.
- A run's settings are those in the run's row and nowhere else.
- A run is never continued with a database that does not know it. `stored_settings` refuses that before anything is
  written.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from illume_db.migrate import current, head
from illume_db.runs import find_run, has_runs, settings_of
from illume_db.sessions import open_engine
from illume_db.tables.versions import version_name
from illume_db.urls import checked, sqlite_file, sqlite_url
from illume_db.versions import checkpoint_digest
from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.artifacts.images import ImageStore
from illume_loop.errors import (
    DatabaseOutdatedError,
    DatabasePasswordError,
    NoActiveVersionError,
    NotARunDirectoryError,
    NotFoundError,
    OtherDatabaseError,
    RunExistsError,
    RunForgottenError,
    RunLockedError,
    UsageError,
)
from illume_loop.files import Root, output_folder, raising_storage_full, write_atomically
from illume_loop.redaction import HIDDEN, url_without_password

MARKER = "run.json"
LOCK = "lock"
DATABASE = "loop.sqlite"
SCRATCH = "tmp"
BEFORE_THE_MARKER = (f".{MARKER}.*", LOCK, SCRATCH, DATABASE, f"{DATABASE}-*", "checkpoints", "*.log")
"""The entries that a start may leave in a new directory if it is killed at once."""
_PAUSES_S = (0.002, 0.02)
"""Seconds between tries at a lock. A process that only looks at it (`holder`) has it for a moment."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run directory whose lock is held."""

    path: Path
    key: str
    scratch: Path


@dataclass(frozen=True, slots=True)
class Marker:
    """The content of run.json."""

    key: str
    database: str
    """The URL without its password; empty for the SQLite file in the directory."""
    begun: bool
    """True if the run's row was added. A start that was killed before that leaves a directory without a run."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is open for reading or for writing. The caller commits what it writes."""

    path: Path
    session: Session
    run_id: int
    images: ImageStore
    checkpoints: CheckpointStore

    def checkpoint(self, name: str | None = None) -> tuple[str, Path]:
        """Return (name, verified local folder) of a model version; of the active one if no name is given.

        Raises NotFoundError, NoActiveVersionError, CorruptArtifactError.
        """
        found = checkpoint_digest(self.session, self.run_id, name)
        if found is None:
            raise NoActiveVersionError if name is None else NotFoundError(kind="model version", name=name)
        number, sha256 = found
        return version_name(number), self.checkpoints.local_path(sha256)


def check_path(path: Path, *, fresh: bool) -> None:
    """Refuse a path that cannot hold a run, or whose run must not be continued. Changes nothing.

    Raises RunExistsError if `fresh` is set and there is a run, UsageError if the path holds something else.
    """
    if fresh and (path / MARKER).exists():
        raise RunExistsError(path=path)
    if not path.exists() or (path / MARKER).exists():
        return
    if not path.is_dir():
        raise UsageError(f"{path} is a file; name a new or empty directory with --run-dir")
    if any(not any(fnmatch(entry.name, ours) for ours in BEFORE_THE_MARKER) for entry in path.iterdir()):
        raise UsageError(f"{path} holds other files and no run; name a new or empty directory with --run-dir")


@contextmanager
def locked(path: Path) -> Iterator[RunDirectory]:
    """Lock a run directory while the block lasts; make it if there is none.

    The directory's key is that of its run, or a new one. Raises RunLockedError while another process holds the lock.
    """
    with raising_storage_full(path):
        output_folder(path)
        with exclusive(path):
            scratch = path / SCRATCH
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            key = read_marker(path).key if (path / MARKER).exists() else uuid4().hex
            yield RunDirectory(path, key, scratch)


def mark(directory: RunDirectory, database_url: str, *, begun: bool) -> None:
    """Write run.json, which names the run's database. The run's row is in that database once it has `begun`."""
    is_own = database_url == sqlite_url(directory.path / DATABASE)
    database = "" if is_own else url_without_password(database_url)
    content = {"format": 2, "key": directory.key, "database": database, "begun": begun}
    data = json.dumps(content, indent=1).encode()
    marker = directory.path / MARKER
    if not marker.exists() or marker.read_bytes() != data:
        write_atomically(marker, data)


@contextmanager
def open_run(
    path: Path, *, database_url: str = "", artifacts_url: str = "", writing: bool = False
) -> Iterator[OpenRun]:
    """Open a run, even while another process works on it.

    A URL that is given replaces that of the directory. Raises NotARunDirectoryError, DatabaseOutdatedError,
    OtherDatabaseError, RunForgottenError, DatabasePasswordError.
    """
    marker = read_marker(path)
    url = _url_of(path, marker, database_url)
    if _is_missing(url):
        raise _unknown(path, marker, url)
    found, expected = current(url), head()
    if found != expected:
        raise DatabaseOutdatedError(found=found or "(none)", expected=expected)
    engine = open_engine(url, read_only=not writing)
    try:
        with Session(engine) as session:
            run = find_run(session, marker.key)
            if run is None:
                raise _unknown(path, marker, url)
            images, checkpoints = open_stores(path, artifacts_url)
            yield OpenRun(path, session, run.id, images, checkpoints)
    finally:
        engine.dispose()


def open_stores(path: Path, artifacts_url: str = "") -> tuple[ImageStore, CheckpointStore]:
    """Return the artifact stores of a run directory, or those at an fsspec URL."""
    root = Root(artifacts_url) if artifacts_url else Root.of_folder(path)
    return ImageStore(root), CheckpointStore(root, path / "cache")


def run_database_url(path: Path, database_url: str = "") -> str:
    """Return the URL to open: the given one, else that of the run in `path`, else the directory's SQLite file.

    Raises DatabasePasswordError.
    """
    marker = read_marker(path) if (path / MARKER).exists() else None
    return _url_of(path, marker, database_url)


def database_url(path: Path) -> str:
    """Return the URL of an existing run's database. Raises NotARunDirectoryError, DatabasePasswordError."""
    return _url_of(path, read_marker(path), "")


def stored_settings(path: Path, database_url: str = "") -> dict[str, Any] | None:
    """Return the resolved settings in the row of the run in `path`; None if there is no run.

    Their `store.database_url` is the database that they were read from, empty for the directory's own. Raises
    DatabaseOutdatedError for a database without tables, OtherDatabaseError, RunForgottenError, DatabasePasswordError.
    """
    if not (path / MARKER).exists():
        return None
    marker = read_marker(path)
    url = _url_of(path, marker, database_url)
    settings = _settings_in(path, marker, url)
    if settings is not None:
        return settings | {"store": settings.get("store", {}) | {"database_url": database_url or marker.database}}
    if marker.begun:
        raise _unknown(path, marker, url)
    return None


def _settings_in(path: Path, marker: Marker, url: str) -> dict[str, Any] | None:
    """Return the settings in the run's row; None if the database has no such row."""
    if _is_missing(url):
        return None
    engine = open_engine(url, read_only=True)
    try:
        with Session(engine) as session:
            if has_runs(session):
                return settings_of(session, marker.key)
    finally:
        engine.dispose()
    if marker.begun and _is_named(path, marker, url):
        raise DatabaseOutdatedError(found="(none)", expected=head())
    return None


def _url_of(path: Path, marker: Marker | None, given: str) -> str:
    if given:
        return given
    if marker is None or not marker.database:
        return sqlite_url(path / DATABASE)
    if HIDDEN in marker.database:
        raise DatabasePasswordError(path=path, database=marker.database)
    return marker.database


def _is_named(path: Path, marker: Marker, url: str) -> bool:
    """Return whether the directory names this database."""
    return url_without_password(url) == (marker.database or sqlite_url(path / DATABASE))


def _is_missing(url: str) -> bool:
    """Return whether the URL names a missing file. SQLite would make an empty one."""
    file = sqlite_file(url)
    return file is not None and not file.exists()


def _unknown(path: Path, marker: Marker, url: str) -> Exception:
    """Return the error for a database that has no row of the run."""
    if not marker.begun:
        return NotARunDirectoryError(path=path)
    opened = url_without_password(url)
    if _is_named(path, marker, url):
        return RunForgottenError(path=path, database=opened)
    return OtherDatabaseError(path=path, opened=opened, database=marker.database or sqlite_url(path / DATABASE))


def run_key_in(path: Path) -> str | None:
    """Return the key of the run in `path`; None if there is no run."""
    try:
        return read_marker(path).key
    except NotARunDirectoryError:
        return None


def holder(path: Path) -> str | None:
    """Return the process id of the process that holds the lock, as its own container counts; None without one."""
    try:
        with (path / LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    except OSError:
        return None
    return None


def read_marker(path: Path) -> Marker:
    """Return the content of run.json. Raises NotARunDirectoryError.

    Its first format held all settings, of which only the database is read.
    """
    try:
        content: dict[str, Any] = json.loads((path / MARKER).read_bytes())
        if content["format"] == 1:
            return Marker(str(content["key"]), _first_url(content["settings"]["store"]["database_url"]), True)
        return Marker(str(content["key"]), str(content["database"]), bool(content["begun"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise NotARunDirectoryError(path=path) from None


def _first_url(url: str) -> str:
    """Return a URL of the first format as settings write it today."""
    with suppress(ValueError):
        return checked(url)
    return url


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Lock an existing directory while the block lasts. Raises RunLockedError while another process holds the lock."""
    with (path / LOCK).open("a+") as file:
        for pause_s in (*_PAUSES_S, None):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if pause_s is None:
                    file.seek(0)
                    raise RunLockedError(path=path, pid=file.read().strip() or "unknown") from None
                time.sleep(pause_s)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
