"""Opening a run to read it, for the commands that do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from illume_loop.config import Settings
    from illume_loop.loop.run_directory import OpenRun

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
    """The settings of the run in `run_dir` under those of the environment; without a run, the defaults."""
    from illume_loop.config import load_settings
    from illume_loop.loop.run_directory import stored_settings

    return load_settings(stored=stored_settings(run_dir))


def found(kind: str, name: object, row: T | None) -> T:
    """`row`, or NotFoundError where there is none."""
    from illume_loop.errors import NotFoundError

    if row is None:
        raise NotFoundError(kind=kind, name=name)
    return row
