"""Hooks of mkdocs: pages made from files outside of docs/, and links that lead out of it.

A link to a file of the repository that is no page leads to a page that shows that file, so the site is whole by itself:
it needs no address of a repository, and no network.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROJECT = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "LICENSE": "project/licence.md",
}
"""Files of the repository that are pages of the site."""
ELSEWHERE = {
    "README.md": "index.md",
    "docs/how-to": "index.md",
    "docs/decisions": "decisions/README.md",
    "docs/experiments": "experiments/studies/README.md",
}
"""Pages that stand for other files and folders."""
LINK = re.compile(r"(\]\(|href=\")(?!\w+:|#)([^)#\s\"]+)")
LANGUAGES = {".toml": "toml", ".py": "python", ".yml": "yaml", ".sh": "bash"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace stars in the navigation by the files that they match, README.md first."""
    config.nav = _expanded(config.nav)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made: of the project, of the commands, and of files that pages link to."""
    made = {"reference/commands.md": _commands()}
    for name, page in PROJECT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        made[page] = text if name.endswith(".md") else f"# Licence\n\n{_shown(text, 'text')}"
    texts = list(made.items())
    texts += [(file.src_uri, file.content_string) for file in files.documentation_pages()]
    for page, text in texts:
        for target in _targets(text, page):
            if _page_of(target).startswith("source/") and (ROOT / target).is_file():
                made[_page_of(target)] = _source(target)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to files of the repository lead to the pages that stand for them."""
    here = page.file.src_uri

    def mended(match: re.Match[str]) -> str:
        target = _target(match.group(2), here)
        if target is None:
            return match.group()
        return match.group(1) + posixpath.relpath(_page_of(target), posixpath.dirname(here) or ".")

    return LINK.sub(mended, markdown)


def _expanded(nav: Any) -> Any:
    match nav:
        case list():
            return [_expanded(item) for item in nav]
        case dict():
            return {title: _expanded(item) for title, item in nav.items()}
        case str() if "*" in nav:
            found = [path.relative_to(DOCS).as_posix() for path in DOCS.glob(nav)]
            return sorted(found, key=lambda path: (posixpath.dirname(path), not path.endswith("README.md"), path))
    return nav


def _targets(text: str, page: str) -> Iterator[str]:
    for _, link in LINK.findall(text):
        target = _target(link, page)
        if target is not None:
            yield target


def _target(link: str, page: str) -> str | None:
    """Return the path below the repository that a link on a page means, or None where mkdocs knows it."""
    origin = next((name for name, made in PROJECT.items() if made == page), f"docs/{page}")
    target = posixpath.normpath(posixpath.join(posixpath.dirname(origin), unquote(link)))
    inside = target.startswith("docs/") and (ROOT / target).is_file()
    if target.startswith("..") or not (ROOT / target).exists() or (inside and origin.startswith("docs/")):
        return None
    return target


def _page_of(target: str) -> str:
    if target in PROJECT | ELSEWHERE:
        return (PROJECT | ELSEWHERE)[target]
    if target.startswith("docs/"):
        return target.removeprefix("docs/")
    return f"source/{target.replace('/.', '/').lstrip('.')}.md"  # mkdocs leaves out what begins with a dot


def _source(target: str) -> str:
    text = (ROOT / target).read_text(encoding="utf-8")
    return f"# {target}\n\n{_shown(text, LANGUAGES.get(Path(target).suffix, 'text'))}"


def _shown(text: str, language: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````\n"


def _commands() -> str:
    """Return a page with the help of every command, as the tests have frozen it."""
    lines = ["# Commands", "", "What `--help` says of the program and of each of its commands.", ""]
    folder = ROOT / "tests" / "golden" / "help"
    for file in sorted(folder.glob("*.txt"), key=lambda file: (file.stem != "top", file.stem)):
        text = file.read_text(encoding="utf-8")
        usage = re.match(r"Usage: (illume-loop(?: [a-z]+)*)", text)
        lines += [f"## {usage.group(1) if usage else file.stem}", "", _shown(text, "{ .text .wide }")]
    return "\n".join(lines)
