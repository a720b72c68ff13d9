"""Opens runs and their settings for the commands."""

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
    """Open the run in `run_dir` for reading, or with `writing` for rows that its coordinator does not write.

    Raises NotARunDirectoryError, DatabaseOutdatedError.
    """
    from illume_loop.cli.exit_codes import ERROR_OPTIONS
    from illume_loop.loop import run_directory

    ERROR_OPTIONS.run_dir = run_dir
    store = settings_for(run_dir).store
    with run_directory.open_run(
        run_dir, database_url=store.database_url, artifacts_url=store.artifacts_url, writing=writing
    ) as run:
        yield run


def settings_for(run_dir: Path) -> Settings:
    """Return the settings of the run in `run_dir` (without a run, the defaults), overridden by the environment.

    Raises DatabaseOutdatedError, and ConflictError if the database does not know the run.
    """
    from illume_loop.loop.run_directory import stored_settings
    from illume_loop.settings import load_settings

    own = load_settings(only=("store",))
    return load_settings(stored=stored_settings(run_dir, own.store.database_url))


def database_for(run_dir: Path) -> str:
    """Return the URL of the database that the environment names, or else that of the run in `run_dir`.

    Raises NotARunDirectoryError if there is neither.
    """
    from illume_loop.loop.run_directory import database_url
    from illume_loop.settings import load_settings

    return load_settings(only=("store",)).store.database_url or database_url(run_dir)


def found(kind: str, name: object, row: T | None) -> T:
    """Return `row`. Raises NotFoundError if it is None."""
    from illume_loop.errors import NotFoundError

    if row is None:
        raise NotFoundError(kind=kind, name=name)
    return row
