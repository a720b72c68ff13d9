"""Opening a run to read it, for the commands that do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from illume_loop.loop.run_directory import OpenRun
    from illume_loop.settings import Settings

T = TypeVar("T")


@contextmanager
def open_run(run_dir: Path, *, writing: bool = False) -> Iterator[OpenRun]:
    """The run in `run_dir`, for reading, or for writing what its coordinator does not.

    Raises NotARunDirectoryError, DatabaseOutdatedError.
    """
    from illume_loop.cli.ending import ENDING
    from illume_loop.loop import run_directory

    ENDING.run_dir = run_dir
    store = settings_for(run_dir).store
    with run_directory.open_run(
        run_dir, database_url=store.database_url, artifacts_url=store.artifacts_url, writing=writing
    ) as run:
        yield run


def settings_for(run_dir: Path) -> Settings:
    """Return the settings in the row of the run in `run_dir`, or the defaults, under those of the environment.

    Raises DatabaseOutdatedError, and ConflictError for a database that does not know the run.
    """
    from illume_loop.loop.run_directory import stored_settings
    from illume_loop.settings import load_settings

    own = load_settings(only=("store",))
    return load_settings(stored=stored_settings(run_dir, own.store.database_url))


def database_for(run_dir: Path) -> str:
    """Return the URL of the database that the environment names, else of the one that knows the run in `run_dir`.

    Raises NotARunDirectoryError where there is neither.
    """
    from illume_loop.loop.run_directory import database_url
    from illume_loop.settings import load_settings

    return load_settings(only=("store",)).store.database_url or database_url(run_dir)


def found(kind: str, name: object, row: T | None) -> T:
    """`row`, or NotFoundError where there is none."""
    from illume_loop.errors import NotFoundError

    if row is None:
        raise NotFoundError(kind=kind, name=name)
    return row
