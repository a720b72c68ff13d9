"""The records of structured files of prompts (CSV, TSV, JSON, YAML and parquet), each a text or an object.

Invariants:
- A line of such a file is never taken for a prompt as it stands.
- If it is not clear which column or key holds the prompts, the file is refused with the names that it has.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from illume_loop.errors import PromptFileError
from illume_loop.files import decoded

PROMPT_NAMES = ("prompt", "prompts", "text", "caption", "prompt_text", "text_prompt", "prompt_en", "description")
CATEGORY_NAMES = ("category", "category_broad", "categories", "tag", "type")
DELIMITERS = ",;\t|"

Record = tuple[str, str | Mapping[str, Any] | ValueError, str]
"""The place of a record as a message names it; the record, or what is wrong with it; the category that it is listed
under, or "" if there is none."""

_SPLITS = {"train", "training", "test", "val", "valid", "validation", "dev", "heldout", "probe"}
_NUMBERED = re.compile(r"^\D{0,40}\d+$")
"""A key that numbers its prompt, such as `7`, `prompt_7` or `COCOval2014000000014635`."""


def text_in(path: Path) -> str:
    """Return a file's text, in any Unicode encoding.

    Raises PromptFileError, which names the line of a bad byte.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PromptFileError(place=path, reason=error.strerror or str(error)) from None
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = "it is not UTF-8 text; save it as UTF-8"
        raise PromptFileError(place=f"{path}, line {line}", reason=reason) from None


def column_of(names: Sequence[str], wanted: str | None, known: Sequence[str]) -> str | None:
    """Return the name of a column or key: `wanted` if it is given, else the first of `known`; None if there is none.

    Known names match in any case of their letters.
    """
    if wanted is not None:
        return wanted if wanted in names else None
    lower = {name.strip().lower(): name for name in reversed(names)}
    return next((lower[name] for name in known if name in lower), None)


def header_of(text: str) -> tuple[str, str] | None:
    """Return (delimiter, format) if a text's first line is the header of a table with prompts, else None."""
    lines = [line for line in text.splitlines() if line.strip()][:2]
    if not lines:
        return None
    for delimiter in "\t,;|":
        cells = [cell.strip().strip('"').lower() for cell in lines[0].split(delimiter)]
        alike = len(lines) == 1 or lines[1].count(delimiter) >= len(cells) - 1 or '"' in lines[1]
        if any(cell in PROMPT_NAMES for cell in cells) and all(len(cell) <= 40 for cell in cells) and alike:
            return delimiter, "tsv" if delimiter == "\t" else "csv"
    return None


def table_records(path: Path, column: str | None, kind: str) -> Iterator[Record]:
    """Yield the rows of a CSV or TSV with a header: objects by column, or texts if it has a single column.

    Raises PromptFileError.
    """
    text = text_in(path)
    rows = _rows(path, text, kind)
    header = [name.strip() for name in next(rows, ("", []))[1]]
    alone = len(header) == 1 and column in (None, header[0])
    if not alone and column_of(header, column, PROMPT_NAMES) is None:
        refuse_columns(path, header, column)
    for place, row in rows:
        cells = row
        while len(cells) > len(header) and not cells[-1].strip():
            cells = cells[:-1]
        if any(cell.strip() for cell in cells):
            if len(cells) > len(header):
                reason = f"it has {len(cells)} columns and the header has {len(header)}; quote texts that hold a comma"
                yield place, ValueError(reason), ""
            elif alone:
                yield place, cells[0], ""
            else:
                yield place, dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=True)), ""


def refuse_columns(path: Path, names: Sequence[str], column: str | None) -> None:
    """Raise PromptFileError: no column is known to hold the prompts."""
    found = ", ".join(repr(name) for name in names[:20]) + (" and more" if len(names) > 20 else "") or "none"
    said = "none of its columns is known to hold prompts" if column is None else f"it has no column {column!r}"
    raise PromptFileError(place=path, reason=f"{said} (it has {found}); name the one that does with --column")


def json_records(path: Path, column: str | None) -> Iterator[Record]:
    """Yield the prompts of a JSON document. Raises PromptFileError."""
    try:
        content = json.loads(text_in(path))
    except (ValueError, RecursionError) as error:
        raise PromptFileError(place=path, reason=f"it is no JSON ({error})") from None
    yield from _found(path, content, "", "", column)


def yaml_records(path: Path, column: str | None) -> Iterator[Record]:
    """Yield the prompts of a YAML document. Raises PromptFileError."""
    try:
        content = yaml.safe_load(text_in(path))
    except (yaml.YAMLError, RecursionError) as error:
        raise PromptFileError(place=path, reason=f"it is no YAML ({' '.join(str(error).split())})") from None
    yield from _found(path, content, "", "", column)


def parquet_records(path: Path, column: str | None) -> Iterator[Record]:
    """Yield the rows of a parquet file: objects of its text columns, or texts if it has a single one.

    Raises PromptFileError.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        reader = parquet.ParquetFile(path)
        names = [field.name for field in reader.schema_arrow if _is_text(field.type)]
        alone = len(names) == 1 and column in (None, names[0])
        if not alone and column_of(names, column, PROMPT_NAMES) is None:
            refuse_columns(path, names, column)
        index = 0
        for batch in reader.iter_batches(columns=names):
            for row in batch.to_pylist():
                index += 1
                texts = {name: value or "" for name, value in row.items()}
                yield f"{path}, row {index}", texts[names[0]] if alone else texts, ""
    except (pa.ArrowException, OSError, ValueError) as error:
        raise PromptFileError(place=path, reason=str(error).splitlines()[0]) from None


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _rows(path: Path, text: str, kind: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (place, cells) for each row of a table, its header first. Raises PromptFileError."""
    plain = [(number, line.split("\t")) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    if kind == "tsv" and _is_plain([cells for _, cells in plain]):
        yield from ((f"{path}, line {number}", [_unquoted(cell) for cell in cells]) for number, cells in plain)
        return
    if re.match(r"sep=.\r?\n", text):  # Excel writes such a line
        text = text.split("\n", 1)[1]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, kind), strict=True)
    line = 1
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield f"{path}, line {line}", row
            line = reader.line_num + 1
    except csv.Error as error:
        raise PromptFileError(place=f"{path}, line {line}", reason=f"it is no row of a table ({error})") from None


def _is_plain(rows: Sequence[Sequence[str]]) -> bool:
    """Return True if each line of a TSV is one row, as benchmarks write it.

    A quotation mark inside a cell of such a file stands for itself.
    """
    return bool(rows) and len(rows[0]) > 1 and all(len(cells) == len(rows[0]) for cells in rows)


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    is_quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if is_quoted else cell


def _delimiter(text: str, kind: str) -> str:
    found = header_of(text)
    if found is not None:
        return found[0]
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max("\t," if kind == "tsv" and "\t" in header else DELIMITERS, key=header.count)


def _found(path: Path, value: object, steps: str, category: str, column: str | None) -> Iterator[Record]:
    """Yield the records below a value: the items of a list, or the records of an object if its keys are clear.

    Raises PromptFileError for any other value.
    """
    place = f"{path}, {steps}" if steps else str(path)
    if isinstance(value, list):
        for index, item in enumerate(value):
            at = f"{place}[{index}]" if steps else f"{path}, [{index}]"
            told = json.dumps(item, default=str)[:40]
            is_record = isinstance(item, str | dict)
            yield at, item if is_record else ValueError(f"it is {told}, neither a text nor an object"), category
    elif isinstance(value, Mapping):
        yield from _of_keys(path, {str(key): item for key, item in value.items()}, steps, category, column)
    else:
        reason = "it is one value, and neither a list nor an object"
        raise PromptFileError(place=place, reason=reason)


def _of_keys(path: Path, keys: Mapping[str, Any], steps: str, category: str, column: str | None) -> Iterator[Record]:
    step = f"{steps}." if steps else ""
    place = f"{path}, {steps}" if steps else str(path)
    prompt = column_of(list(keys), column, PROMPT_NAMES)
    nested = {key: item for key, item in keys.items() if isinstance(item, list | dict)}
    lists = [key for key, item in nested.items() if isinstance(item, list)]
    if isinstance(keys.get(prompt or ""), str) and (column is not None or prompt == "prompt" or not nested):
        yield place, keys, category
    elif prompt in nested:
        yield from _column(path, keys, f"{step}{prompt}", prompt, category)
    elif keys and all(_NUMBERED.match(key) and isinstance(item, str | dict) for key, item in keys.items()):
        yield from ((f"{path}, {step}{key}", item, category) for key, item in keys.items())
    elif len(keys) > 1 and len(lists) == len(keys) and not _SPLITS & keys.keys():
        for key in lists:  # the keys are categories, the lists their prompts
            yield from _found(path, keys[key], f"{step}{key}", key, column)
    elif len(inner := lists or list(nested)) == 1:
        yield from _found(path, keys[inner[0]], f"{step}{inner[0]}", category, column)
    else:
        names = ", ".join(repr(key) for key in list(keys)[:20]) or "none"
        reason = f"it is not clear which of its keys holds the prompts (it has {names}); name that one with --column"
        raise PromptFileError(place=place, reason=reason)


def _column(path: Path, keys: Mapping[str, Any], steps: str, prompt: str, category: str) -> Iterator[Record]:
    """Yield the prompts of a column that is a list, or an object by row as pandas writes it."""
    named = column_of(list(keys), None, CATEGORY_NAMES)
    texts, beside = keys[prompt], keys.get(named or "")
    if isinstance(texts, dict):
        beside = [beside.get(key) for key in texts] if isinstance(beside, dict) else None
        texts = list(texts.values())
    names = beside if isinstance(beside, list) and len(beside) == len(texts) else [category] * len(texts)
    for (at, item, _), name in zip(_found(path, texts, steps, category, None), names, strict=True):
        yield at, item, name if isinstance(name, str) else category
