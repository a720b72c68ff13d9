"""constraints.txt locks every requirement within its bounds, and whoever installs the project for tests uses it."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.utils import canonicalize_name

from tests.support.golden import ROOT

EXTRAS = frozenset(
    tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
)
INSTALLING = [".ci/run", "Makefile", "README.md", "docs/tutorial.md", "Dockerfile"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script behind .ci/newest."""
    spec = importlib.util.spec_from_file_location("versions", ROOT / ".ci" / "versions.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_requirement_is_locked_within_its_bounds(script: ModuleType) -> None:
    locked = script.versions(ROOT / "constraints.txt")
    for requirement in script.requirements(ROOT / "pyproject.toml", EXTRAS):
        name = canonicalize_name(requirement.name)
        if name != "torch":  # its build is the machine's
            assert requirement.specifier.contains(locked[name]), requirement


def test_every_requirement_has_an_upper_bound(script: ModuleType) -> None:
    for requirement in script.requirements(ROOT / "pyproject.toml", EXTRAS):
        operators = {bound.operator for bound in requirement.specifier}
        assert operators & {"<", "<=", "=="}, f"{requirement} would take a release that removes what is used"


@pytest.mark.parametrize("name", INSTALLING)
def test_the_project_is_installed_with_the_locked_versions(name: str) -> None:
    installing = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if _installs_project(line)]
    assert installing
    for line in installing:
        assert "-c constraints.txt" in line, f"{name}: {line.strip()}"


def _installs_project(line: str) -> bool:
    # The image installs what the project requires as a list, and the project itself without it.
    named = (" -e .", "'.[", '".[', " -r requirements.txt")
    return "install" in line and any(name in line for name in named)


def test_the_script_groups_failures_by_message(script: ModuleType, tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(
        """<testsuites><testsuite>
        <testcase classname="a" name="one"><failure message="FutureWarning: x goes&#10;at line 3"/></testcase>
        <testcase classname="a" name="two"><error message="other"/></testcase>
        <testcase classname="b" name="three"><failure message="FutureWarning: x goes"/></testcase>
        <testcase classname="b" name="four"/>
        </testsuite></testsuites>""",
        encoding="utf-8",
    )
    assert script.failures(junit) == {"FutureWarning: x goes": ["a::one", "b::three"], "other": ["a::two"]}
