"""One finished tiny run, shared by all tests that only read it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.process import Ended, run, tiny_config


@dataclass(frozen=True)
class Finished:
    """A run that came to its end, in `<folder>/illume-run`."""

    folder: Path
    config: Path
    ended: Ended

    @property
    def run_dir(self) -> Path:
        return self.folder / "illume-run"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    config = tiny_config(folder)
    ended = run("start", "--config", config, cwd=folder, cold=True)
    assert ended.code == 0, ended.err
    return Finished(folder, config, ended)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Finished:
    """A copy of the finished run, to be damaged."""
    shutil.copytree(finished.run_dir, tmp_path / "illume-run")
    return Finished(tmp_path, finished.config, finished.ended)
