"""The detection of a prompt file's format, by its name and its content.

Invariants:
- The format `text` is found only for a file that looks like one prompt a line. A file that looks like another format is
  refused, because its lines would become prompts and spoil a held-out set without a message.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from illume_loop.domains.text.formats import COMPBENCH
from illume_loop.domains.text.records import PROMPT_NAMES, column_of, header_of, text_in
from illume_loop.errors import PromptFileError

_BY_NAME = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".yaml": "yaml",
    ".yml": "yaml",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
}
_PLAIN = (".txt", ".text", ".md", ".prompt", ".prompts", ".list", ".lst", ".log", ".out", ".set")
_BINARY = {
    b"PK\x03\x04": "a ZIP archive or an Excel sheet; save it as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel sheet; save it as CSV",
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"BZh": "compressed (bzip2); unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it first",
    b"\xfd7zXZ": "compressed (xz); unpack it first",
    b"%PDF": "a PDF; save its text",
    b"ARROW1": "an Arrow file; save it as parquet",
    b"SQLite format 3": "a SQLite database; export a table as CSV",
}
_OF_FIRST_LINE = {
    r"<[!?a-zA-Z]": "XML or HTML",
    r"#\s|#!": "Markdown or a script",
    r"---$|[\w-]+:\s*([|>\[{-].*)?$": "YAML",
    r"\[[\w.\"-]+\]$": "TOML or INI",
    r"[\w.]+\s*[:=]+\s*[\[{(\"']|import |from \w+ import ": "a program",
}
_OF_ALL_LINES = {
    r"[-*\u2022]\s": "a list with marks",
    r"\d+\s*[.):]\s": "a numbered list",
    r"[\w-]*\d[\w-]*\s*[,;|]": "a table without a header",
    r"([\"']).+\1\s*,?$": "a list of quoted texts",
}


def detected(path: Path) -> str:
    """Return the format of a file or folder. Raises PromptFileError if the format is not known."""
    if path.is_dir():
        return "dpg"
    if path.suffix.lower() in (".parquet", ".pq") or _beginning(path).startswith(b"PAR1"):
        return "parquet"
    for magic, told in _BINARY.items():
        if _beginning(path).startswith(magic):
            raise PromptFileError(place=path, reason=f"it is {told}")
    lines = [line.strip() for line in text_in(path).splitlines() if line.strip()]
    if not lines:
        return "text"
    kind = _BY_NAME.get(path.suffix.lower())
    return _of_json(lines, kind) or _of_table(lines, kind) or kind or _of_text(path, lines)


def _beginning(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise PromptFileError(place=path, reason=error.strerror or str(error)) from None


def _of_json(lines: Sequence[str], kind: str | None) -> str | None:
    """Return `json`, `jsonl` or `geneval` if the lines begin like JSON, else None.

    The format's reader names a bad line.
    """
    first, whole = lines[0], _parsed("\n".join(lines))
    if first.startswith("{"):
        name = column_of(list(whole), None, PROMPT_NAMES) if isinstance(whole, dict) else None
        has_prompt = isinstance(whole, dict) and isinstance(whole.get(name), str)
        if whole is not None and (len(lines) > 1 or kind == "json" or (kind is None and not has_prompt)):
            return "json"
        if whole is None and _parsed(first) is None and (kind == "json" or first == "{"):
            return "json"
        return "geneval" if '"include"' in first and '"tag"' in first and '"spec"' not in first else "jsonl"
    if first.startswith("[") and (whole is not None or first in ("[", "[{", "[[", '["')):
        return "json"
    return None


def _of_table(lines: Sequence[str], kind: str | None) -> str | None:
    """Return `partiprompts`, `csv` or `tsv` if the lines begin with a header, else None."""
    if {"Prompt", "Category"} <= set(lines[0].split("\t")):
        return "partiprompts"
    header = header_of("\n".join(lines[:2])) if kind is None else None
    return header[1] if header is not None else None


def _of_text(path: Path, lines: Sequence[str]) -> str:
    """Return `t2i-compbench` or `text`. Raises PromptFileError if it looks like another format."""
    if COMPBENCH.match(path.stem):
        return "t2i-compbench"
    looks = next((told for pattern, told in _OF_FIRST_LINE.items() if re.match(pattern, lines[0])), None)
    if len(lines) > 1 and looks is None:
        looks = next(
            (told for pattern, told in _OF_ALL_LINES.items() if all(re.match(pattern, line) for line in lines)), None
        )
    if looks is None and any("\t" in line for line in lines):
        looks = "a table without a known header"
    told = f"it looks like {looks}" if looks is not None else f"its name ends in {path.suffix}"
    if looks is not None or (path.suffix[1:].isalpha() and path.suffix.lower() not in _PLAIN):
        reason = f"{told}, and is not known to be one prompt a line; give --format text if each line is a prompt"
        raise PromptFileError(place=path, reason=reason)
    return "text"


def _parsed(text: str) -> object:
    """Return the value of a JSON text; None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
