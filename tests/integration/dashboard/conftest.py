"""One canned run for all that only look at it, and copies of it for those that change something."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.support.dashboard import dashboard_over, looked_at


@pytest.fixture(scope="session")
def seen_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return looked_at(tmp_path_factory.mktemp("dashboard"))


@pytest.fixture
def run_dir(seen_run: Path, tmp_path: Path) -> Path:
    """A copy of the run, of which the caller may change what it likes."""
    return Path(shutil.copytree(seen_run, tmp_path / "run"))


@pytest.fixture
def client(run_dir: Path) -> Iterator[TestClient]:
    with dashboard_over(run_dir) as app, TestClient(app, base_url="http://127.0.0.1") as found:
        yield found
