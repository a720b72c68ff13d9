"""The rooms of the code base: arrows point down only, and nothing imports in a circle.

Imports within functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "illume_loop": ROOT / "illume_loop",
    "illume_workers": ROOT / "workers" / "illume_workers",
    "illume_db": ROOT / "db" / "illume_db",
}
ROOMS = (
    "illume_db",
    "errors",
    "hooks",
    "host",
    "redaction",
    "environment",
    "files",
    "settings",
    "protocols",
    "artifacts",
    "telemetry",
    "runtime",
    "domains",
    "engine",
    "evals",
    "charts",
    "judge",
    "models",
    "data",
    "train",
    "bench",
    "pretrain",
    "loop",
    "report",
    "exports",
    "dashboard",
    "start",
    "ablate",
    "illume_workers",
    "cli",
    "__main__",
)
"""From the ground up: a room imports only those before it."""
STAGES = "illume_loop.loop.stages."
BELOW_STAGES = (
    "assessing",
    "candidates",
    "canonical",
    "closing",
    "context",
    "curated",
    "gate_plans",
    "guards",
    "measures",
    "moves",
    "policies",
    "promotion",
    "prompts",
    "rollouts",
    "run_directory",
    "states",
    "unit_inputs",
)
"""Modules of the loop that stages may import."""

Graph = Mapping[str, frozenset[str]]


@cache
def graph() -> Graph:
    """Return the modules of the installed packages, each with those that it imports."""
    files = {_name(file): file for folder in PACKAGES.values() for file in folder.rglob("*.py")}
    return {name: frozenset(_imports(file, files)) - {name} for name, file in files.items()}


def _name(file: Path) -> str:
    top = next(name for name, folder in PACKAGES.items() if file.is_relative_to(folder))
    parts = file.relative_to(PACKAGES[top].parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(file: Path, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports by a relative name"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in files else str(node.module) for name in names]
        yield from (name for name in names if name in files)


def room_of(module: str) -> str:
    """Return the room of a module: a package of its own, or what stands directly in `illume_loop`."""
    top, *rest = module.split(".")
    return rest[0] if top == "illume_loop" and rest else top


def circles(arrows: Graph) -> list[set[str]]:
    """Return the groups of modules that import each other in a circle."""
    reached = {name: _reached(name, arrows) for name in arrows}
    groups = [{other for other in reached[name] if name in reached[other]} for name in arrows if name in reached[name]]
    return [group for place, group in enumerate(groups) if group not in groups[:place]]


def _reached(start: str, arrows: Graph) -> set[str]:
    found: set[str] = set()
    left = list(arrows[start])
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += arrows[name]
    return found


def test_circles_are_found() -> None:
    arrows = {name: frozenset(others) for name, others in (("a", "b"), ("b", "c"), ("c", "b"), ("d", "ab"))}
    assert circles(arrows) == [{"b", "c"}]


def test_the_graph_has_the_code_base() -> None:
    assert len(graph()) > 300
    assert "illume_db.sessions" in graph()["illume_loop.start"]
    assert "illume_loop.report.page" in graph()["illume_loop.start"]


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(graph()) == []


def test_arrows_point_down() -> None:
    height = {room: place for place, room in enumerate(ROOMS)} | {"illume_loop": -1}
    upward = [
        f"{module} -> {other}"
        for module, others in graph().items()
        for other in others
        if height[room_of(other)] > height[room_of(module)]
    ]
    assert upward == []


def test_every_room_exists() -> None:
    assert {room_of(module) for module in graph()} - {"illume_loop"} == set(ROOMS)


@pytest.mark.parametrize("stage", sorted(name for name in graph() if name.startswith(STAGES)))
def test_a_stage_imports_no_other_stage(stage: str) -> None:
    of_loop = {name.removeprefix("illume_loop.loop.") for name in graph()[stage] if name.startswith("illume_loop.loop")}
    assert of_loop <= set(BELOW_STAGES)


def test_what_stages_import_imports_no_stage() -> None:
    for name in BELOW_STAGES:
        assert not any(other.startswith(STAGES) for other in _reached(f"illume_loop.loop.{name}", graph()))


def test_the_wheel_installs_no_name_of_others() -> None:
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]["targets"]
    names = [Path(package).name for package in built["wheel"]["packages"]]
    assert names
    assert all(name.startswith("illume") for name in names)


def test_stages_need_no_torch() -> None:
    names = sorted(name for name in graph() if name.startswith(STAGES))
    program = f"import sys, {', '.join(names)}; print('torch' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout == "False\n"
