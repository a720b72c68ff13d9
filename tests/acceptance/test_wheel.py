"""The wheel works wherever it is installed, beside packages of others and below folders of any name."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.golden import ROOT
from tests.support.process import environment, tiny_config

NOT_OURS = 'raise ImportError("this package is not of illume-loop")\n'


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of installed packages: the wheel, and a package called `db` of somebody else."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder / "built")]
    subprocess.run(build, cwd=ROOT, env=environment(), check=True, capture_output=True, timeout=240)
    (wheel,) = (folder / "built").glob("*.whl")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder / "site")
    for name in ("db", "migrations"):
        (folder / "site" / name).mkdir()
        (folder / "site" / name / "__init__.py").write_text(NOT_OURS)
    return folder / "site"


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A working folder that holds a package `workers` of its own."""
    (tmp_path / "workers").mkdir()
    (tmp_path / "workers" / "__init__.py").write_text(NOT_OURS)
    return tmp_path


def _run(site: Path, here: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "illume_loop", *arguments]
    ended = subprocess.run(
        command,
        cwd=here,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_installed_name_begins_with_illume(site: Path) -> None:
    names = {path.name for path in site.iterdir()} - {"db", "migrations"}
    assert names
    assert all(name.startswith("illume") for name in names)


def test_a_run_of_the_wheel_is_not_disturbed_by_the_packages_of_others(site: Path, here: Path) -> None:
    config = tiny_config(here)
    where = "import illume_loop, illume_db, illume_workers; print(illume_loop.__file__, illume_db.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", where],
        cwd=here,
        env=environment(PYTHONPATH=str(site)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(Path(path).is_relative_to(site) for path in told.stdout.split())
    _run(site, here, "start", "--config", str(config), "--rounds", "1")
    (row,) = json.loads(_run(site, here, "rounds", "ls", "--json"))
    assert row["state"] in ("promoted", "rejected")
    assert json.loads(_run(site, here, "db", "check", "--json"))["ok"]


def test_shipped_settings_are_found_by_name(site: Path, here: Path) -> None:
    rows = json.loads(_run(site, here, "config", "show", "--config", "dpo", "--json"))
    assert {row["key"]: row["value"] for row in rows}["train.objective"] == "dpo"
