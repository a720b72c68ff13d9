"""The example of docs/how-to/plug-in-a-domain.md, copied from the page, runs from its settings to its gate."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.golden import ROOT
from tests.support.process import read_json, run

PAGE = ROOT / "docs" / "how-to" / "plug-in-a-domain.md"


def _blocks() -> dict[str, str]:
    """Return the page's files by their names: each stands at the beginning of the paragraph before its block."""
    found: dict[str, str] = {}
    name, content = "", None
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if content is not None:
                found[name] = "\n".join([*content, ""])
            content = [] if content is None else None
        elif content is not None:
            content.append(line)
        elif match := re.match(r"`(\w+\.\w+)`", line):
            name = match[1]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's files, in which the package is installed as pip would have written it."""
    blocks = _blocks()
    assert set(blocks) == {"my_package.py", "pyproject.toml", "prompts.jsonl", "kitchens.toml"}
    for name, content in blocks.items():
        (tmp_path / name).write_text(content)
    project = tomllib.loads(blocks["pyproject.toml"])["project"]
    (group, points), *_ = project["entry-points"].items()
    info = tmp_path / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = [f"{name} = {value}" for name, value in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
    return tmp_path


def test_the_example_runs_to_its_gate(folder: Path) -> None:
    installed = {"PYTHONPATH": str(folder)}
    command = next(line for line in PAGE.read_text().splitlines() if "illume-loop start --config" in line).split()[1:]
    ended = run(*command, cwd=folder, cold=True, **installed)
    assert ended.code == 0, ended.err
    notes = [line for line in ended.err.splitlines() if line.startswith("preflight: ")]
    assert notes[1:] == [
        "preflight: the domain 'kitchens' has no reading probes, so the gate does not guard understanding"
    ]
    (row,) = read_json("rounds", "ls", "--run-dir", "kitchens", cwd=folder)
    assert row["state"] in ("promoted", "rejected")
    assert row["reasons"][-1] == "understanding is not guarded, as the domain has no reading probes"
    assert (row["understanding"], row["samples"]) == ({"parent": None, "candidate": None}, 32)
    assert row["judge_auc"] is not None
    shown = run("rounds", "show", "1", "--run-dir", "kitchens", cwd=folder)
    assert (shown.code, "understanding is not guarded" in shown.out) == (0, True)
    for suite, lacking in (("understanding", "no reading probes"), ("editing", "no edits")):
        asked = ("eval", "shapes-base", "-n", "4", "--run-dir", "kitchens", "--suite", suite)
        refused = run(*asked, cwd=folder, cold=True, **installed)
        assert (refused.code, refused.out) == (2, "")
        assert lacking in refused.err


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("    def check(self, image, prompt):\n        return missing.part(image)\n", "judging cannot work: NameError"),
        ("    def prompts(self, split, count, seed):\n        return []\n", "cannot work"),
    ],
)
def test_a_part_that_does_not_work_is_named_before_anything_is_made(folder: Path, changed: str, told: str) -> None:
    with (folder / "my_package.py").open("a") as file:
        file.write("\n" + changed)
    ended = run(
        "start", "--config", "kitchens.toml", "--run-dir", "kitchens", cwd=folder, cold=True, PYTHONPATH=str(folder)
    )
    assert (ended.code, ended.out) == (2, "")
    assert told in ended.sentences[0]
    assert not (folder / "kitchens").exists()


def test_a_domain_without_a_required_part_is_refused_by_its_name(folder: Path) -> None:
    (folder / "my_package.py").write_text(
        "class KitchenDomain:\n    exact = True\n\n    def __init__(self, prompts): ..."
    )
    ended = run("config", "check", "--config", "kitchens.toml", cwd=folder, cold=True, PYTHONPATH=str(folder))
    assert ended.code == 2
    assert "has no `name` and no `categories`" in ended.err
    assert "docs/how-to/plug-in-a-domain.md" in ended.err
