"""The formats of prompt files, as benchmarks and people write them; detecting.py tells them apart.

    geneval         JSON lines of metadata, with `tag`, `include`, `exclude` and `prompt`; the tag is the category
    t2i-compbench   a text file named after its category and part (`numeracy_train.txt`); one prompt a line
    dpg             DPG-Bench's folder: one prompt a file; the letters that a file's name begins with are the category
    partiprompts    a TSV with the columns Prompt and Category
    text            one prompt a line; the file's name is the category
    jsonl           JSON lines with `prompt` and optional `category`, `split` and `spec` (spec.py), or with other keys
    csv, tsv        a table with a header; json, yaml, parquet: records (records.py)

Invariants:
- A file is read whole or refused. A refusal names the first bad line and says how many there are.
- A file is read line by line only if it looks like plain text; a file that looks like another format is refused.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from illume_loop.domains.text.keys import key_of
from illume_loop.domains.text.records import (
    CATEGORY_NAMES,
    PROMPT_NAMES,
    Record,
    column_of,
    json_records,
    parquet_records,
    table_records,
    text_in,
    yaml_records,
)
from illume_loop.domains.text.spec import spec_of
from illume_loop.errors import PromptFileError
from illume_loop.protocols import Prompt, Split

FORMATS = ("geneval", "t2i-compbench", "dpg", "partiprompts", "text", "jsonl", "csv", "tsv", "json", "yaml", "parquet")
LONGEST_PROMPT = 10_000
MOST_LINES = 20
"""The most lines of a file that holds one prompt."""
LONGEST_CATEGORY = 64
"""Characters; the limit of the database."""

COMPBENCH = re.compile(r"^(color|shape|texture|(?:3d_)?spatial|non_spatial|numeracy|complex)_(?:train|val)\w*$")
_GENEVAL_KEYS = ("tag", "include", "exclude")
_KEYS = ("prompt", "category", "split", "spec")

Found = tuple[Split | None, Prompt]
Fields = tuple[str, str, dict[str, object], Split | None]
"""A prompt's text, category, spec and split."""
Place = tuple[str, Callable[[], Fields]]
"""The place of a prompt as a message names it, and a function that reads the prompt or raises ValueError."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file or a folder with its format.

    `category` replaces the category that the format gives. `column` and `category_column` name the columns or keys of
    prompts and categories.
    """

    path: Path
    format: str
    category: str | None = None
    column: str | None = None
    category_column: str | None = None


def read_prompts(source: Source, *, needs_split: bool = False) -> list[Found]:
    """Return the prompts of a source in order, each with its split or None.

    Raises PromptFileError, also if `needs_split` is set and a prompt has no split.
    """
    found: list[Found] = []
    problems: list[tuple[str, str]] = []
    for place, fields in _PLACES[source.format](source):
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


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, line) for each line that is not blank. Only \\n and \\r\\n end a line."""
    for number, line in enumerate(text_in(path).split("\n"), start=1):
        if line.strip():
            yield f"{path}, line {number}", line


def _text_lines(source: Source) -> Iterator[Place]:
    match = COMPBENCH.match(source.path.stem)
    category = match[1] if match else source.path.stem
    for place, line in _lines(source.path):
        yield place, lambda line=line: (line, category, {}, None)  # type: ignore[misc]


def _json_lines(source: Source) -> Iterator[Place]:
    for place, line in _lines(source.path):
        yield place, lambda line=line: _of_record(_text_or_object(line), source, source.path.stem)  # type: ignore[misc]


def _records(source: Source) -> Iterator[Place]:
    read: dict[str, Callable[[], Iterator[Record]]] = {
        "csv": lambda: table_records(source.path, source.column, "csv"),
        "tsv": lambda: table_records(source.path, source.column, "tsv"),
        "json": lambda: json_records(source.path, source.column),
        "yaml": lambda: yaml_records(source.path, source.column),
        "parquet": lambda: parquet_records(source.path, source.column),
    }
    for place, record, category in read[source.format]():
        yield place, lambda record=record, category=category: _of_record(record, source, category or source.path.stem)  # type: ignore[misc]


def _geneval_lines(source: Source) -> Iterator[Place]:
    for place, line in _lines(source.path):
        yield place, lambda line=line: _of_metadata(_object(line))  # type: ignore[misc]


def _tsv_lines(source: Source) -> Iterator[Place]:
    path = source.path
    rows = csv.reader(text_in(path).split("\n"), delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [name.strip() for name in next(rows, [])]
    for name in ("Prompt", "Category"):
        if name not in header:
            raise PromptFileError(place=f"{path}, line 1", reason=f"the column {name} is missing")
    for row in rows:
        if row:
            fields = [field.strip("\r") for field in row]
            yield f"{path}, line {rows.line_num}", lambda row=fields: _of_row(header, row)  # type: ignore[misc]


def _folder(source: Source) -> Iterator[Place]:
    """Yield the prompts of DPG-Bench's folder, of the folder that holds it, or of a single file."""
    path = source.path
    folder = path / "prompts" if (path / "prompts").is_dir() else path
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else [path]
    if not files:
        raise PromptFileError(place=path, reason="there is no .txt file in it; name its files themselves")
    for file in files:
        text, prefix = text_in(file), re.match(r"[A-Za-z]+", file.stem)
        if COMPBENCH.match(file.stem) or sum(1 for line in text.splitlines() if line.strip()) > MOST_LINES:
            raise PromptFileError(
                place=file, reason="it holds a prompt a line, not one prompt; name the files themselves"
            )
        category = prefix[0] if prefix else "dpg"
        yield str(file), lambda text=text, category=category: (text, category, {}, None)  # type: ignore[misc]


_PLACES: dict[str, Callable[[Source], Iterator[Place]]] = {
    "geneval": _geneval_lines,
    "t2i-compbench": _text_lines,
    "dpg": _folder,
    "partiprompts": _tsv_lines,
    "text": _text_lines,
    "jsonl": _json_lines,
    **dict.fromkeys(("csv", "tsv", "json", "yaml", "parquet"), _records),
}


def _object(line: str) -> dict[str, object]:
    data = _text_or_object(line)
    if isinstance(data, str):
        raise ValueError("it is no JSON object")
    return data


def _text_or_object(line: str) -> str | dict[str, object]:
    try:
        data = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, str | dict):
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


def _of_record(record: str | Mapping[str, object] | ValueError, source: Source, category: str) -> Fields:
    """Return the fields of a record of any layout. Raises ValueError, which says what is wrong with it."""
    if isinstance(record, ValueError):
        raise record
    if isinstance(record, str):
        return record, category, {}, None
    data = dict(record)
    if source.column is None and isinstance(data.get("prompt"), str):
        if "include" in data and "tag" in data:
            return _of_metadata(data)
        if data.keys() <= {*_KEYS} or "spec" in data:
            return _of_object(data, category)
    name = column_of(list(data), source.column, PROMPT_NAMES)
    if name is None:
        known = "none of its keys is known to hold a prompt" if source.column is None else f"no key '{source.column}'"
        raise ValueError(
            f"{known} (it has {', '.join(map(str, data)) or 'none'}); name the one that does with --column"
        )
    named = column_of(list(data), source.category_column, CATEGORY_NAMES)
    if source.category_column is not None and named is None:
        raise ValueError(f"no key '{source.category_column}' (it has {', '.join(map(str, data))})")
    _not_misspelt(data, {name, named})
    told, split = data.get(named or ""), data.get("split")
    return (
        _string(data, name),
        told if isinstance(told, str) and told.strip() else category,
        {},
        split if split in get_args(Split) else None,  # type: ignore[return-value]
    )


def _not_misspelt(data: Mapping[str, object], used: set[str | None]) -> None:
    """Raise ValueError for a key that is nearly one of the known keys.

    A misspelt key would otherwise be ignored, and its meaning lost without a message.
    """
    for key in data.keys() - used - {*_KEYS, *PROMPT_NAMES, *CATEGORY_NAMES}:
        if meant := get_close_matches(key, _KEYS, n=1, cutoff=0.85):
            raise ValueError(f"unknown key '{key}'; did you mean '{meant[0]}'?")


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
