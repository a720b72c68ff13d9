"""Compare versions of dependencies and group what failed with them; used by .ci/newest.

python .ci/versions.py names pyproject.toml             requirements of the tests, without bounds but torch's
python .ci/versions.py changed constraints.txt FREEZE   versions that differ
python .ci/versions.py broken JUNIT_XML                 failures by message, the most frequent first
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement


def requirements(pyproject: Path, extras: frozenset[str] = frozenset({"test"})) -> list[Requirement]:
    """Return the requirements of the project with `extras`; extras that name extras of the project are resolved."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    optional = project["optional-dependencies"]
    todo, found = [*project["dependencies"], *(line for extra in extras for line in optional[extra])], []
    while todo:
        requirement = Requirement(todo.pop())
        if requirement.name == project["name"]:
            todo += [line for extra in requirement.extras for line in optional[extra]]
        else:
            found.append(requirement)
    return sorted(found, key=str)


def versions(freeze: Path) -> dict[str, str]:
    """Return the pinned version of each package, by its normalised name."""
    lines = (line.split(" ;")[0].strip() for line in freeze.read_text(encoding="utf-8").splitlines())
    pairs = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


def unbounded(requirement: Requirement) -> str:
    """Return the requirement as pip takes it, without its bounds; torch keeps them, as its build is the machine's."""
    if requirement.name == "torch":
        return str(requirement)
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}"


def failures(junit: Path) -> dict[str, list[str]]:
    """Return the tests that failed by the first line of their message."""
    broken = defaultdict(list)
    for case in ElementTree.parse(junit).iter("testcase"):
        for problem in (*case.iter("failure"), *case.iter("error")):
            message = (problem.get("message") or "").strip().split("\n")[0][:200]
            broken[message].append(f"{case.get('classname')}::{case.get('name')}")
    return dict(sorted(broken.items(), key=lambda item: -len(item[1])))


def main(what: str, *files: str) -> None:
    """Print one of the three lists."""
    paths = [Path(file) for file in files]
    if what == "names":
        print(*dict.fromkeys(map(unbounded, requirements(paths[0]))), sep="\n")
    elif what == "changed":
        locked, newest = map(versions, paths)
        for name in sorted(newest):
            if locked.get(name) != newest[name] and name != "torch":
                print(f"{name}: {locked.get(name, 'not locked')} -> {newest[name]}")
    elif what == "broken":
        for message, tests in failures(paths[0]).items():
            print(f"{len(tests)} x {message}", *(f"    {test}" for test in tests[:5]), sep="\n")
            if len(tests) > 5:
                print(f"    and {len(tests) - 5} more")


if __name__ == "__main__":
    main(*sys.argv[1:])
