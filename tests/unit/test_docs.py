"""The documents agree with the code: settings, commands, options, files and links that they name exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import typer

from illume_loop.cli.config import settings_rows
from illume_loop.cli.main import app
from illume_loop.settings import field_names, load_settings
from tests.support.golden import ROOT, check_golden

PAGES = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def _settings_page() -> str:
    lines = [
        "# Settings",
        "",
        "Written by a test from `illume_loop/settings/`. `illume-loop config show` prints what is in force. Sources,",
        "each overriding the one before: defaults (or those of the run that is continued), the TOML file given by",
        "`--config`, variables `ILLUME_<SECTION>__<KEY>` (for example `ILLUME_RUN__SEED=7`), flags. Unknown",
        "keys are errors in every source.",
        "",
        "`ILLUME_<SECTION>__<KEY>_FILE` names a file that holds the value, and `ILLUME_<SECTION>__<KEY>_PASSWORD_FILE`",
        "one that holds the password of a URL: so a secret is neither in a command nor in the environment. Passwords",
        "are shown as `***`, and TLS options go into the URLs.",
    ]
    rows = settings_rows(load_settings(environ={}))
    lines += _settings_tables([row for row in rows if not row["advanced"]])
    lines += ["", "# Advanced settings", "", "Few runs need these."]
    return "\n".join([*lines, *_settings_tables([row for row in rows if row["advanced"]])]) + "\n"


def _settings_tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    section = ""
    for row in rows:
        table, name = row["key"].split(".")
        if table != section:
            section = table
            lines += ["", f"## [{table}]", "", "| key | default | bounds | what it is |", "| --- | --- | --- | --- |"]
        value = str(row["value"]).lower() if isinstance(row["value"], bool) else row["value"]
        bounds = row["bounds"].replace("|", "\\|")
        lines.append(f"| `{name}` | {f'`{value}`' if value != '' else ''} | {bounds} | {row['description']} |")
    return lines


def test_a_newcomer_sees_at_most_60_settings() -> None:
    assert 0 < sum(not row["advanced"] for row in settings_rows(load_settings(environ={}))) <= 60


def test_the_settings_page_is_the_settings() -> None:
    check_golden("docs/reference/settings.md", _settings_page())


def _block(name: str) -> str:
    """The part of the README between the marks of this name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return text.split(f"<!-- {name}: begin -->\n")[1].split(f"<!-- {name}: end -->\n")[0]


def _rooms() -> set[str]:
    """The top-level folders, those in `illume_loop/` and those in its `loop/`, as git has or would add them."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    folders = {
        str(parent)
        for name in filter(None, done.stdout.split("\0"))
        if not name.startswith(".") and (ROOT / name).is_file()
        for parent in PurePosixPath(name).parents
    }
    inside = re.compile(r"(?!illume_loop$)[^/.]+|illume_loop/(loop/)?[^/]+")
    return {f"{folder}/" for folder in folders if inside.fullmatch(folder)}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout: git says which folders belong to the project")
def test_the_map_names_every_room_once() -> None:
    named = Counter(re.findall(r"(?m)^\| `([\w/]+/)` \| \S", _block("map")))
    assert {name: count for name, count in named.items() if count > 1} == {}
    rooms = _rooms()
    assert rooms - set(named) == set(), "rooms that the README's map leaves out"
    deeper = {name for name in named if any(name.startswith(room) for room in rooms)}
    assert set(named) - deeper == set(), "the README's map names what is not there"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_numbers_of_the_readme_are_those_of_the_experiment() -> None:
    measured = (ROOT / "docs" / "experiments" / "loop" / "README.md").read_text(encoding="utf-8")
    numbers = re.findall(r"[-+]?\d+\.\d+", _block("numbers"))
    assert len(numbers) > 10
    assert [
        number for number in numbers if not re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.]*\d)", measured)
    ] == []


def _commands(text: str) -> Iterator[str]:
    """Every `illume-loop ...` in code: indented lines, fenced lines, backticks."""
    for match in re.finditer(r"(?m)(?:^ {4,}|`|&& |\| )\$? ?(illume-loop [^`\n#|]*)", text):
        yield match.group(1).split(" && ")[0].split("   ")[0].strip().rstrip("\\")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_exist(page: Path) -> None:
    root = typer.main.get_command(app)
    for line in _commands(page.read_text(encoding="utf-8")):
        words = shlex.split(line)[1:]
        command, path = root, "illume-loop"
        while words and not words[0].startswith("-") and words[0] in getattr(command, "commands", {}):
            command = command.commands[words[0]]
            path += f" {words.pop(0)}"
        assert not (words and getattr(command, "commands", {}) and words[0].isalpha() and words[0].islower()), line
        known = {name for option in (*root.params, *command.params) for name in option.opts + option.secondary_opts}
        for word in words:
            if word.startswith("-") and word != "...":
                assert word.split("=")[0] in known | {"--help"}, f"{page.name}: {path} has no {word}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
    for name in re.findall(r"`((?:illume_loop|db|workers|migrations|configs|tests|docs)/[\w./-]*)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_settings_and_variables_exist(page: Path) -> None:
    known = set(field_names())
    sections = {key.split(".")[0] for key in known}
    text = page.read_text(encoding="utf-8")
    for key in re.findall(r"`([a-z]+\.[a-z_]+)`", text):
        if key.split(".")[0] in sections and not key.endswith((".py", ".toml", ".md")):
            assert key in known, f"{page.name} names the setting {key}"
    for section, name in re.findall(r"\bILLUME_([A-Z]+)__([A-Z_]+)\b", text):
        key = f"{section}.{name}".lower()
        assert {key, key.removesuffix("_file"), key.removesuffix("_password_file")} & known, f"{page.name} names {key}"
