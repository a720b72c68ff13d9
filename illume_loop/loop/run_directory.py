"""The directory of a run: what marks it, who may write to it, and how to read it.

    run.json       names the run (its key in the database) and its settings; written once, whole
    lock           held by the one process that works on the run
    loop.sqlite    the database, unless settings name another
    images/, checkpoints/    the artifacts, unless settings name another place
    tmp/           half-made checkpoints; emptied when a process takes the lock

Guarantee: at most one process works on a run directory. The lock is the kernel's, so it ends with its process, however
that ends.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy.orm import Session

from db import migrate
from db.models.version import version_name
from db.queries.models import checkpoint_digest
from db.sessions import open_engine
from db.writes.runs import find_run
from illume_loop.artifacts.checkpoints import CheckpointStore
from illume_loop.artifacts.files import Root, output_folder, storage_full_told, write_atomically
from illume_loop.artifacts.images import ImageStore
from illume_loop.errors import (
    DatabaseOutdatedError,
    NoActiveVersionError,
    NotARunDirectoryError,
    NotFoundError,
    RunExistsError,
    RunLockedError,
    UsageError,
)

MARKER = "run.json"
LOCK = "lock"
DATABASE = "loop.sqlite"
SCRATCH = "tmp"
BEFORE_THE_MARKER = (f".{MARKER}.*", LOCK, SCRATCH, DATABASE, f"{DATABASE}-*", "checkpoints", "*.log")
"""What a start that was killed at once may leave in a new directory."""
_PAUSES_S = (0.002, 0.02)
"""Between tries at a lock, which whoever only looks (`holder`) has for a moment."""


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run directory whose lock is held."""

    path: Path
    key: str
    scratch: Path


@dataclass(frozen=True, slots=True)
class OpenRun:
    """A run that is open for reading, or for writing: then whoever opened it commits."""

    path: Path
    session: Session
    run_id: int
    images: ImageStore
    checkpoints: CheckpointStore

    def checkpoint(self, name: str | None = None) -> tuple[str, Path]:
        """(name, verified local folder) of a model version; of the active one where no name is given.

        Raises NotFoundError, NoActiveVersionError, CorruptArtifactError.
        """
        found = checkpoint_digest(self.session, self.run_id, name)
        if found is None:
            raise NoActiveVersionError if name is None else NotFoundError(kind="model version", name=name)
        number, sha256 = found
        return version_name(number), self.checkpoints.local_path(sha256)


def check_path(path: Path, *, fresh: bool) -> None:
    """Refuse a path where no run can be, or must not be continued. Changes nothing.

    Raises RunExistsError where `fresh` and there is a run, UsageError where the path holds something else.
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
    """Hold a run directory, made where there is none; its key is that of its run, or a new one.

    Raises RunLockedError while another process holds it.
    """
    with storage_full_told(path):
        output_folder(path)
        with exclusive(path):
            scratch = path / SCRATCH
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            key = _read_marker(path)["key"] if (path / MARKER).exists() else uuid4().hex
            yield RunDirectory(path, key, scratch)


def mark(directory: RunDirectory, settings: dict[str, Any]) -> None:
    """Make the directory that of a run: its key and its settings. Called just before the run's row is added."""
    content = {"format": 1, "key": directory.key, "settings": settings}
    write_atomically(directory.path / MARKER, json.dumps(content, indent=1).encode())


@contextmanager
def open_run(
    path: Path, *, database_url: str = "", artifacts_url: str = "", writing: bool = False
) -> Iterator[OpenRun]:
    """Open a run, also while another process works on it. Raises NotARunDirectoryError, DatabaseOutdatedError."""
    key = _read_marker(path)["key"]
    url = run_database_url(path, database_url)
    if not database_url and not (path / DATABASE).exists():
        raise NotARunDirectoryError(path=path)
    found, expected = migrate.current(url), migrate.head()
    if found != expected:
        raise DatabaseOutdatedError(found=found or "(none)", expected=expected)
    engine = open_engine(url, read_only=not writing)
    try:
        with Session(engine) as session:
            run = find_run(session, key)
            if run is None:
                raise NotARunDirectoryError(path=path)
            images, checkpoints = open_stores(path, artifacts_url)
            yield OpenRun(path, session, run.id, images, checkpoints)
    finally:
        engine.dispose()


def open_stores(path: Path, artifacts_url: str = "") -> tuple[ImageStore, CheckpointStore]:
    """The artifact stores of a run directory, or those at an fsspec URL."""
    root = Root(artifacts_url or str(path.absolute()))
    return ImageStore(root), CheckpointStore(root, path / "cache")


def run_database_url(path: Path, database_url: str = "") -> str:
    """The URL given, or that of the SQLite file in the run directory."""
    return database_url or f"sqlite:///{(path / DATABASE).absolute()}"


def database_url(path: Path) -> str:
    """The database in the directory of an existing run. Raises NotARunDirectoryError."""
    _read_marker(path)
    return run_database_url(path)


def stored_settings(path: Path) -> dict[str, Any] | None:
    """The resolved settings that the run in `path` was started with; None where there is no run."""
    if not (path / MARKER).exists():
        return None
    settings: dict[str, Any] = _read_marker(path)["settings"]
    return settings


def run_key_in(path: Path) -> str | None:
    """The key of the run in `path`; None where there is no run."""
    try:
        return str(_read_marker(path)["key"])
    except NotARunDirectoryError:
        return None


def holder(path: Path) -> str | None:
    """The id of the process that works in `path`, in its own container's count; None where none does."""
    try:
        with (path / LOCK).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read().strip() or "unknown"
    except OSError:
        return None
    return None


def _read_marker(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((path / MARKER).read_bytes())
        return {"key": content["key"], "settings": content["settings"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise NotARunDirectoryError(path=path) from None


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """The one right to work in a directory that exists. Raises RunLockedError while another process has it."""
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
