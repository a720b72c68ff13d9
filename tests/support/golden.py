"""Texts that only change on purpose: `UPDATE_GOLDEN=1 pytest` writes them anew."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).parents[2]


def check_golden(path: str, text: str) -> None:
    """Assert that the file `path` (below the repository) holds `text`."""
    file = ROOT / path
    if os.environ.get("UPDATE_GOLDEN"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert file.read_text(encoding="utf-8") == text, f"{path} changed; if meant, run UPDATE_GOLDEN=1 pytest"
