"""The documents as a site: every page is found from the navigation, and the site is whole without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest
import yaml

from tests.support.golden import ROOT

DOCS = ROOT / "docs"
NAVIGATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]


def _pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from _pages(item)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning of the builder is an error."""
    if find_spec("mkdocs") is None or find_spec("material") is None:
        pytest.skip("needs mkdocs-material: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_how_to_is_in_the_navigation_once() -> None:
    listed = [page for page in _pages(NAVIGATION) if page.startswith("how-to/")]
    assert sorted(listed) == sorted(f"how-to/{path.name}" for path in (DOCS / "how-to").glob("*.md"))


def test_the_site_has_a_page_for_every_document(site: Path) -> None:
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).with_name("index.html" if path.name == "README.md" else f"{path.stem}.html")
        assert (site / page).exists(), f"{path.relative_to(ROOT)} is no page"


def test_every_link_of_the_site_leads_to_a_file_of_it(site: Path) -> None:
    for page in site.rglob("*.html"):
        for link in re.findall(r'(?:href|src)="([^"]+)"', page.read_text(encoding="utf-8")):
            target = unquote(urldefrag(link).url)
            if target and not re.match(r"[a-z]+:", target) and page.name != "404.html":
                assert (page.parent / target).exists(), f"{page.relative_to(site)} links to {link}"


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(?:https?:)?//', text), page
        assert not re.findall(r'<link\b[^>]*\bhref="(?:https?:)?//', text), page
