"""The readers of rows from files: WebDataset tar, parquet as `datasets` writes it, JSON lines and JSON lists.

Invariants:
- A file is read in one fixed order, piece by piece. Only a JSON list is held in memory as a whole.
- A row that cannot be read becomes a BadRow, and reading goes on, unless the file itself is damaged.
- A JSON file's content tells its layout: one list, an object with one list, or one row per line. Blank lines are not
  rows.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from illume_loop.data.fields import PICTURES, BadRow, Fields
from illume_loop.data.image_folder import files_below
from illume_loop.data.rows import Place
from illume_loop.errors import DataSourceError
from illume_loop.files import decoded, encoding_of, storable

ENDINGS = (".tar", ".parquet", ".jsonl", ".json")
_IN_FOLDERS = ENDINGS[:3]
_BATCH = 64
_BLANK = b" \t\r\n\v\f\xef\xbb\xbf"
"""The bytes that a blank line may hold: white space and a byte order mark."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [first, stop) of a file; a `stop` of None means its end.

    A tar is one piece, because its rows can be counted only by reading it.
    """

    file: str
    first: int
    stop: int | None


Found = tuple[Place, Fields | BadRow]


def files_of(source: Path) -> list[Path]:
    """Return the source itself if it is a file, or the files below it in the order of their paths.

    Raises DataSourceError.
    """
    if source.is_dir():
        files = [path for path in files_below(source) if _kind(path) in _IN_FOLDERS]
        if not files:
            raise DataSourceError(path=source, reason=f"the folder has no file ending in {', '.join(_IN_FOLDERS)}")
        return files
    if not source.is_file():
        raise DataSourceError(path=source, reason="there is no such file or folder")
    if _kind(source) not in ENDINGS:
        raise DataSourceError(path=source, reason=f"its name ends in none of {', '.join(ENDINGS)}")
    return [source]


def pieces_of(file: Path, num_rows: int) -> list[Piece]:
    """Return a file's pieces, each of at least `num_rows` rows except the last. Raises DataSourceError.

    A parquet file is cut between its row groups.
    """
    if _kind(file) == ".tar":
        return [Piece(str(file), 0, None)]
    if _kind(file) == ".parquet":
        metadata = _parquet_file(file).metadata
        sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    else:
        sizes = [1] * _num_rows_in_json(file)
    pieces, first, stop = [], 0, 0
    for size in sizes:
        stop += size
        if stop - first >= num_rows:
            pieces.append(Piece(str(file), first, stop))
            first = stop
    return [*pieces, Piece(str(file), first, stop)] if stop > first else pieces


def rows_of(piece: Piece) -> Iterator[Found]:
    """Yield the rows of a piece as fields by name. Raises DataSourceError if the file has been damaged since."""
    file = Path(piece.file)
    read = {".tar": _tar, ".parquet": _parquet}.get(_kind(file), _json)
    yield from read(file, piece)


def _kind(file: Path) -> str:
    return file.suffix.lower()


def _tar(file: Path, _: Piece) -> Iterator[Found]:
    """Yield the rows of a WebDataset tar.

    A row is the files that share their name up to the first dot. A JSON file of a row adds its keys as fields.
    """
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    index = 0
    try:
        with file.open("rb") as stream:
            members = ({**member, "__url__": str(file)} for member in tar_file_iterator(stream))
            # The handler ignores the error for a second member of the same name, so the first one counts.
            for sample in group_by_keys(members, handler=lambda _: True):
                place = Place(str(file), index, sample["__key__"])
                index += 1
                try:
                    yield place, _fields_of_sample(sample)
                except BadRow as problem:
                    yield place, problem
    except (tarfile.TarError, EOFError, OSError) as error:
        yield Place(str(file), index), BadRow("damaged file", f"{error}; what follows in it is left out")


def _fields_of_sample(sample: Mapping[str, Any]) -> Fields:
    fields: dict[str, Any] = {}
    for name, data in sample.items():
        if name.startswith("__"):
            continue
        # "source.jpg" is the image in the field `source`; "jpg" is the row's only image.
        *called, kind = name.split(".")
        field = ".".join(called)
        if kind in PICTURES:
            fields[field or "image"] = data
        elif kind == "txt":
            fields[field or "text"] = _decoded(data)
        elif kind == "json":
            told = _parsed(data)
            if not field and not isinstance(told, Mapping):
                raise BadRow("unknown layout", "its JSON is no object")
            fields |= {field: told} if field else {key: value for key, value in told.items() if key not in fields}
    return fields


def _parquet(file: Path, piece: Piece) -> Iterator[Found]:
    reader = _parquet_file(file)
    start = 0
    for group in range(reader.num_row_groups):
        stop = start + reader.metadata.row_group(group).num_rows
        if piece.first <= start and stop <= (piece.stop or stop):
            index = start
            try:
                for batch in reader.iter_batches(batch_size=_BATCH, row_groups=[group]):
                    for fields in _plain_rows(batch):
                        yield Place(str(file), index), fields
                        index += 1
            except (pa.ArrowException, OSError) as error:
                # Every remaining row of the damaged group is counted as lost.
                problem = BadRow("damaged file", f"{error}; the rest of its row group is left out")
                yield from ((Place(str(file), lost), problem) for lost in range(index, stop))
        start = stop


def _plain_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Yield the rows as plain values. A value that cannot be read is a BadRow, which counts only if it is used."""
    try:
        yield from batch.to_pylist()
        return
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        pass  # a text is not UTF-8, or a time is outside Python's range; to_pylist does not tell which value it was
    for index in range(batch.num_rows):
        yield {name: _plain(batch.column(name)[index]) for name in batch.schema.names}


def _plain(value: Any) -> Any:
    try:
        return value.as_py()
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "unreadable value"
        return BadRow(reason, str(error))


def _parquet_file(file: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataSourceError(path=file, reason=str(error).splitlines()[0]) from None


def _json(file: Path, piece: Piece) -> Iterator[Found]:
    rows: Iterable[Any] = islice(_lines(file) if _has_lines(file) else _json_list(file), piece.first, piece.stop)
    for index, item in enumerate(rows, piece.first):
        if isinstance(item, bytes) and not item.strip(_BLANK):
            continue
        try:
            fields = _parsed(item) if isinstance(item, bytes) else item
            if not isinstance(fields, Mapping):
                raise BadRow("unknown layout", "it is no JSON object")
            yield Place(str(file), index, storable(str(fields.get("id", "")))), fields
        except BadRow as problem:
            yield Place(str(file), index), problem


def _lines(file: Path) -> Iterator[bytes]:
    """Yield the lines of a file in UTF-8, whatever encoding the file has."""
    with file.open("rb") as lines:
        encoding = encoding_of(lines.read(4))
        lines.seek(0)
        if encoding.startswith("utf-8"):
            yield from lines
            return
    with file.open(encoding=encoding, errors="replace", newline="\n") as texts:
        yield from (text.encode("utf-8", "replace") for text in texts)


def _num_rows_in_json(file: Path) -> int:
    """Return the number of rows, counting the blank lines before the last row."""
    try:
        if not _has_lines(file):
            return len(_json_list(file))
        return max((number for number, line in enumerate(_lines(file), 1) if line.strip(_BLANK)), default=0)
    except OSError as error:
        raise DataSourceError(path=file, reason=error.strerror or str(error)) from None


@lru_cache(maxsize=64)
def _has_lines(file: Path) -> bool:
    """Return True if a file has one row per line, False if it is one JSON document. The content decides.

    A list is one document, and so are an object over several lines and a single object in a `.json` file.
    """
    filled = (line.strip(_BLANK) for line in _lines(file))
    beginning = list(islice((line for line in filled if line), 2))
    if not beginning or beginning[0].startswith(b"["):
        return not beginning
    try:
        json.loads(beginning[0])
    except (ValueError, RecursionError):
        return _kind(file) != ".json" and beginning[0] != b"{"
    return len(beginning) > 1 or _kind(file) != ".json"


@lru_cache(maxsize=1)
def _json_list(file: Path) -> list[Any]:
    """Return the items of a JSON list, as LLaVA publishes its dialogues. Raises DataSourceError.

    The cache keeps the list for the next pieces of the same file.
    """
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError, RecursionError) as error:
        raise DataSourceError(path=file, reason=f"it is not JSON ({error})") from None
    if isinstance(content, Mapping):
        lists = {key: value for key, value in content.items() if isinstance(value, list)}
        if len(lists) > 1:
            reason = f"it holds several lists ({', '.join(lists)}); keep the one with the rows"
            raise DataSourceError(path=file, reason=reason)
        content = next(iter(lists.values()), None)
    if not isinstance(content, list):
        raise DataSourceError(path=file, reason="it holds no JSON list")
    return content


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRow("not JSON", str(error)) from None


def _decoded(data: bytes) -> str:
    try:
        return decoded(data)
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", str(error)) from None
