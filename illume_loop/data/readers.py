"""Rows as files hold them: WebDataset tar, parquet as `datasets` writes it, JSON lines and JSON lists.

Guarantee: a file is read in one fixed order, a piece at a time, without being held in memory (a JSON list excepted);
what cannot be read is a row with a problem and never the end of the file, unless the file itself is damaged.
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

from illume_loop.artifacts.files import stays_below
from illume_loop.data.rows import BadRow, Fields, Place
from illume_loop.errors import DataSourceError

ENDINGS = (".tar", ".parquet", ".jsonl", ".json")
_IN_FOLDERS = ENDINGS[:3]
_BATCH = 64
_PICTURES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [first, stop) of a file; None is its end. A tar is one piece, as it tells its rows only when it is read."""

    file: str
    first: int
    stop: int | None


Found = tuple[Place, Fields | BadRow]


def files_of(source: Path) -> list[Path]:
    """The files that a source means, in the order of their names: itself, or those of a folder and its folders.

    Raises DataSourceError.
    """
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix in _IN_FOLDERS and path.is_file())
        if not files:
            raise DataSourceError(path=source, reason=f"the folder has no file ending in {', '.join(_IN_FOLDERS)}")
        return files
    if not source.is_file():
        raise DataSourceError(path=source, reason="there is no such file or folder")
    if source.suffix not in ENDINGS:
        raise DataSourceError(path=source, reason=f"its name ends in none of {', '.join(ENDINGS)}")
    return [source]


def pieces_of(file: Path, num_rows: int) -> list[Piece]:
    """A file in pieces of at least `num_rows` rows, but the last; parquet is cut between its row groups.

    Raises DataSourceError.
    """
    if file.suffix == ".tar":
        return [Piece(str(file), 0, None)]
    if file.suffix == ".parquet":
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


def rows_of(piece: Piece, images: Path | None = None) -> Iterator[Found]:
    """The rows of a piece as fields by name. `images` is the folder of images that are named by path; the file's own by
    default. Raises DataSourceError where a file that was whole is no longer."""
    file = Path(piece.file)
    if file.suffix == ".tar":
        yield from _tar(file)
        return
    folder = images or file.parent
    found = _parquet(file, piece) if file.suffix == ".parquet" else _json(file, piece)
    for place, fields in found:
        try:
            yield place, fields if isinstance(fields, BadRow) else _with_images(fields, folder)
        except BadRow as problem:
            yield place, problem


def _tar(file: Path) -> Iterator[Found]:
    """Samples are files that share their name up to the first dot; a JSON file of a sample gives its keys."""
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    index = 0
    try:
        with file.open("rb") as stream:
            members = ({**member, "__url__": str(file)} for member in tar_file_iterator(stream))
            # The first of two members of one name counts.
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
        # "source.jpg" is the image called source, "jpg" the sample's only one.
        *called, kind = name.split(".")
        field = ".".join(called)
        if kind in _PICTURES:
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
                    for fields in batch.to_pylist():
                        yield Place(str(file), index), fields
                        index += 1
            except (pa.ArrowException, OSError) as error:
                yield Place(str(file), index), BadRow("damaged file", f"{error}; the rest of its row group is left out")
        start = stop


def _parquet_file(file: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise DataSourceError(path=file, reason=str(error).splitlines()[0]) from None


def _json(file: Path, piece: Piece) -> Iterator[Found]:
    if file.suffix == ".json":
        content: Iterable[Any] = islice(_json_list(file), piece.first, piece.stop)
    else:
        content = islice(_lines(file), piece.first, piece.stop)
    for index, item in enumerate(content, piece.first):
        try:
            fields = _parsed(item) if isinstance(item, bytes) else item
            if not isinstance(fields, Mapping):
                raise BadRow("unknown layout", "it is no JSON object")
            yield Place(str(file), index, str(fields.get("id", ""))), fields
        except BadRow as problem:
            yield Place(str(file), index), problem


def _lines(file: Path) -> Iterator[bytes]:
    with file.open("rb") as lines:
        yield from lines


def _num_rows_in_json(file: Path) -> int:
    return len(_json_list(file)) if file.suffix == ".json" else sum(1 for _ in _lines(file))


@lru_cache(maxsize=1)
def _json_list(file: Path) -> list[Any]:
    """LLaVA publishes its dialogues so. Read whole, once for all pieces of a file that follow each other."""
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise DataSourceError(path=file, reason=f"it is not JSON ({error})") from None
    if not isinstance(content, list):
        raise DataSourceError(path=file, reason="it holds no JSON list")
    return content


def _with_images(fields: Fields, folder: Path) -> Fields:
    """The fields with the bytes of images that are named by path: `image`, `images`, and those beside empty bytes."""
    found = dict(fields)
    for name, value in fields.items():
        if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:
            if value["bytes"] is None and value["path"]:
                found[name] = _read(folder, value["path"])
        elif isinstance(value, str) and value and Path(value).suffix.lower().lstrip(".") in _PICTURES:
            found[name] = _read(folder, value) if "image" in name or name in ("source", "target") else value
        elif name in ("image", "images") and isinstance(value, list):
            found[name] = [_read(folder, one) if isinstance(one, str) else one for one in value]
    return found


def _read(folder: Path, name: str) -> bytes:
    # Names come from files that anyone may have written, so they must not lead out of the folder.
    if not stays_below(name):
        raise BadRow("image outside of the folder", name)
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise BadRow("image not found", f"{folder / name}: {error.strerror}") from None


def _parsed(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise BadRow("not JSON", str(error)) from None


def _decoded(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadRow("not UTF-8", str(error)) from None
