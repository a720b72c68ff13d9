"""Files of prompts as benchmarks and people have them: read as they are, told apart by themselves.

    geneval         JSON lines of metadata, with `tag`, `include`, `exclude` and `prompt`; the tag is the category
    t2i-compbench   a text file named for its category and part, as `numeracy_train.txt`; one prompt a line
    dpg             DPG-Bench's folder: one prompt a file; what a file's name begins with is the category
    partiprompts    a TSV with the columns Prompt and Category
    text            one prompt a line; the file's name is the category
    jsonl           JSON lines with `prompt`, and as one likes `category`, `split` and `spec` (spec.py)

Guarantee: a file is read whole or refused, and a refusal names the first bad line and says how many there are.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from illume_loop.domains.protocol import Prompt, Split
from illume_loop.domains.text.keys import key_of
from illume_loop.domains.text.spec import spec_of
from illume_loop.errors import PromptFileError

FORMATS = ("geneval", "t2i-compbench", "dpg", "partiprompts", "text", "jsonl")
LONGEST_PROMPT = 10_000
LONGEST_CATEGORY = 64
"""Characters, as the database has room for."""

_COMPBENCH = re.compile(r"^(color|shape|texture|(?:3d_)?spatial|non_spatial|numeracy|complex)_(?:train|val)\w*$")
_GENEVAL_KEYS = ("tag", "include", "exclude")
_KEYS = ("prompt", "category", "split", "spec")

Found = tuple[Split | None, Prompt]
Fields = tuple[str, str, dict[str, object], Split | None]
"""Text, category, spec, split."""
Place = tuple[str, Callable[[], Fields]]
"""Where a prompt stands, as a message names it, and its reading, which raises ValueError."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or a folder with its format; `category` takes the place of what the format says."""

    path: Path
    format: str
    category: str | None = None


def detected(path: Path) -> str:
    """The format of a file or folder, by its name and how it begins. Raises PromptFileError."""
    if path.is_dir():
        return "dpg"
    text = _text_of(path)
    head = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if head.startswith("{"):
        return "geneval" if '"include"' in head and '"tag"' in head and '"spec"' not in head else "jsonl"
    if {"Prompt", "Category"} <= set(head.split("\t")):
        return "partiprompts"
    return "t2i-compbench" if _COMPBENCH.match(path.stem) else "text"


def read_prompts(source: Source, *, needs_split: bool = False) -> list[Found]:
    """The prompts of a source in order, with their split where the line says one. Raises PromptFileError."""
    found: list[Found] = []
    problems: list[tuple[str, str]] = []
    for place, fields in _PLACES[source.format](source.path):
        try:
            text, category, spec, split = fields()
            if needs_split and split is None:
                raise ValueError("it has no split")
            found.append((split, _prompt(text, source.category or category, spec)))
        except ValueError as error:
            problems.append((place, str(error)))
    if problems:
        (place, reason), more = problems[0], len(problems) - 1
        raise PromptFileError(place=place, reason=reason + (f" (and {more} more bad lines)" if more else ""))
    if not found:
        raise PromptFileError(place=source.path, reason="it holds no prompt")
    return found


def _prompt(text: str, category: str, spec: dict[str, object]) -> Prompt:
    plain = " ".join(text.split())
    if not plain:
        raise ValueError("the prompt is empty")
    if len(plain) > LONGEST_PROMPT:
        raise ValueError(f"the prompt has {len(plain)} characters, more than {LONGEST_PROMPT}")
    if not plain.isprintable():
        raise ValueError("the prompt holds a character that cannot be printed")
    name = " ".join(category.split()).casefold()
    if not 0 < len(name) <= LONGEST_CATEGORY:
        raise ValueError(f"the category must have 1 to {LONGEST_CATEGORY} characters")
    if spec:
        spec_of(spec)
    return Prompt(plain, name, key_of(plain), spec)


def _text_of(path: Path) -> str:
    """A file's text. A bad byte is named by its line. Raises PromptFileError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptFileError(place=path, reason=error.strerror or str(error)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PromptFileError(place=f"{path}, line {line}", reason="it is not UTF-8 text") from None


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(place, line) of the lines that are not blank. Only \\n and \\r\\n end a line."""
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _text_lines(path: Path) -> Iterator[Place]:
    match = _COMPBENCH.match(path.stem)
    category = match[1] if match else path.stem
    for place, line in _lines(path):
        yield place, lambda line=line: (line, category, {}, None)  # type: ignore[misc]


def _json_lines(path: Path) -> Iterator[Place]:
    for place, line in _lines(path):
        yield place, lambda line=line: _of_object(_object(line), path.stem)  # type: ignore[misc]


def _geneval_lines(path: Path) -> Iterator[Place]:
    for place, line in _lines(path):
        yield place, lambda line=line: _of_metadata(_object(line))  # type: ignore[misc]


def _tsv_lines(path: Path) -> Iterator[Place]:
    rows = csv.reader(_text_of(path).split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [name.strip() for name in next(rows, [])]
    for name in ("Prompt", "Category"):
        if name not in header:
            raise PromptFileError(place=f"{path}, line 1", reason=f"the column {name} is missing")
    for row in rows:
        if row:
            fields = [field.strip("\r") for field in row]
            yield f"{path}, line {rows.line_num}", lambda row=fields: _of_row(header, row)  # type: ignore[misc]


def _folder(path: Path) -> Iterator[Place]:
    """DPG-Bench's folder, or the one that holds it."""
    folder = path / "prompts" if (path / "prompts").is_dir() else path
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else [path]
    if not files:
        raise PromptFileError(place=path, reason="there is no .txt file in it")
    for file in files:
        text, prefix = _text_of(file), re.match(r"[A-Za-z]+", file.stem)
        category = prefix[0] if prefix else "dpg"
        yield str(file), lambda text=text, category=category: (text, category, {}, None)  # type: ignore[misc]


_PLACES: dict[str, Callable[[Path], Iterator[Place]]] = {
    "geneval": _geneval_lines,
    "t2i-compbench": _text_lines,
    "dpg": _folder,
    "partiprompts": _tsv_lines,
    "text": _text_lines,
    "jsonl": _json_lines,
}


def _object(line: str) -> dict[str, object]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg})") from None
    if not isinstance(data, dict):
        raise ValueError("it is no JSON object")
    return data


def _string(data: dict[str, object], key: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"'{key}' must be a text" if key in data else f"'{key}' is missing")
    return value


def _known(data: dict[str, object], keys: tuple[str, ...]) -> None:
    for key in data:
        if key not in keys:
            raise ValueError(f"unknown key '{key}'; known are {', '.join(keys)}")


def _of_object(data: dict[str, object], default_category: str) -> Fields:
    _known(data, _KEYS)
    spec, split = data.get("spec", {}), data.get("split")
    if not isinstance(spec, dict):
        raise ValueError("'spec' must be an object")
    if split is not None and split not in get_args(Split):
        raise ValueError(f"'split' must be one of {', '.join(get_args(Split))}")
    return _string(data, "prompt"), _string(data, "category", default_category), spec, split  # type: ignore[return-value]


def _of_metadata(data: dict[str, object]) -> Fields:
    _known(data, (*_GENEVAL_KEYS, "prompt"))
    spec = {key: data[key] for key in _GENEVAL_KEYS if key in data}
    if "include" not in spec:
        raise ValueError("'include' is missing")
    return _string(data, "prompt"), _string(data, "tag"), spec, None


def _of_row(header: list[str], row: list[str]) -> Fields:
    if len(row) < len(header):
        row = row + [""] * (len(header) - len(row))
    if len(row) > len(header):
        raise ValueError(f"it has {len(row)} columns and the header has {len(header)}")
    values = dict(zip(header, row, strict=True))
    return values["Prompt"], values["Category"], {}, None
