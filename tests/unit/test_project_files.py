"""The files that every project has agree with each other: version, licence, and the checks of CI."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from illume_loop import __version__
from tests.support.golden import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_licence_is_apache_2_wherever_it_is_named() -> None:
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").split()[:4] == ["Apache", "License", "Version", "2.0,"]
    assert PROJECT["license"] == CITATION["license"] == "Apache-2.0"
    cards = sorted((ROOT / "illume_loop" / "models" / "bases").glob("*/README.md"))
    assert cards
    for card in cards:
        assert "license: apache-2.0" in card.read_text(encoding="utf-8")


def test_the_citation_has_what_the_format_requires() -> None:
    assert {"cff-version", "title", "message", "authors"} <= set(CITATION)
    assert [author["name"] for author in CITATION["authors"]] == [author["name"] for author in PROJECT["authors"]]


@pytest.mark.parametrize(
    ("file", "pattern"),
    [
        ("CITATION.cff", r"^version: (.+)$"),
        ("CHANGELOG.md", r"^## \[(\d+\.\d+\.\d+)\]"),
        ("docker-compose.yml", r"ILLUME_IMAGE:-illume-loop:([\d.]+)\}"),
        ("docker-compose.gpu.yml", r"ILLUME_GPU_IMAGE:-illume-loop:([\d.]+)-gpu\}"),
    ],
)
def test_the_version_is_the_same_everywhere(file: str, pattern: str) -> None:
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    assert found.group(1) == __version__


def test_the_hooks_of_pre_commit_are_the_checks_of_ci() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    commands = [" ".join([hook["entry"], *hook.get("args", [])]) for repo in hooks for hook in repo["hooks"]]
    lines = _lines(ROOT / ".ci" / "run")
    checks = lines[lines.index("ruff check .") : lines.index("pytest")]
    assert commands == checks
    assert {repo["repo"] for repo in hooks} == {"local"}, "the versions are those of constraints.txt"
    made = [line.removeprefix("$(BIN)/") for line in _lines(ROOT / "Makefile")]
    assert [line for line in made if line in checks] == checks


def _lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
