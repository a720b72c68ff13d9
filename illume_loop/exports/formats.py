"""The file formats of an export, written shard by shard.

Invariants:
- A shard is written under a temporary name and renamed when it is complete, so every shard file is complete.
- The same rows make the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from datasets import DatasetInfo, Features
from pyarrow import ipc, parquet

from illume_loop.exports.tables import TABLES, ImageOf, Row, Table
from illume_loop.files import write_atomically

PARTIAL = ".part"
IMAGES = "images"

ReadImage = Callable[[str], bytes]
Write = Callable[[Sequence[Row]], None]


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: `open` writes a shard, `ending` is its file extension, `loaded` is Python that loads a table."""

    name: str
    ending: str
    open: Callable[[Path, Features, ReadImage], AbstractContextManager[Write]]
    loaded: str
    finish: Callable[[Path, Mapping[str, Sequence[str]]], None] | None = None
    """The function that completes the export: it gets the folder, and the shards of each table that has rows."""


@contextmanager
def _parquet(path: Path, features: Features, read_image: ReadImage) -> Iterator[Write]:
    schema = features.arrow_schema
    with parquet.ParquetWriter(path, schema) as writer:
        yield lambda rows: writer.write_table(_arrow(rows, schema, read_image))


@contextmanager
def _arrow_stream(path: Path, features: Features, read_image: ReadImage) -> Iterator[Write]:
    schema = features.arrow_schema
    with pa.OSFile(str(path), "wb") as file, ipc.new_stream(file, schema) as writer:
        yield lambda rows: writer.write_table(_arrow(rows, schema, read_image))


@contextmanager
def _jsonl(path: Path, _: Features, read_image: ReadImage) -> Iterator[Write]:
    folder = path.parent.parent / IMAGES

    def stored(image: ImageOf) -> str:
        if not (target := folder / f"{image.sha256}.png").exists():
            write_atomically(target, read_image(image.sha256))
        return f"{IMAGES}/{target.name}"

    with path.open("w", encoding="utf-8") as file:

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                file.write(json.dumps(_resolved(row, stored), ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _webdataset(path: Path, _: Features, read_image: ReadImage) -> Iterator[Write]:
    """Write each row as `<key>.json` beside its images: `<key>.png`, then `<key>.1.png` and so on for further ones."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, data: bytes) -> None:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

        def write(rows: Sequence[Row]) -> None:
            for row in rows:
                images = list(_images_of(row))
                number = "-".join(f"{row[name]:09d}" for name in ("id", "round", "position") if name in row)
                for place, image in enumerate(images):
                    add(f"{number}.{f'{place}.' if place else ''}png", read_image(image.sha256))
                plain = _resolved(row, lambda image: image.sha256)
                add(f"{number}.json", json.dumps(plain, ensure_ascii=False).encode())

        yield write


def _finish_arrow(folder: Path, shards: Mapping[str, Sequence[str]]) -> None:
    """Write the files that `datasets.load_from_disk` expects, in each table's folder and, for splits, in the folder."""
    for name, files in shards.items():
        state: dict[str, object] = {
            "_data_files": [{"filename": file} for file in files],
            "_fingerprint": f"illume-loop-{name}",
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        write_atomically(folder / name / "state.json", json.dumps(state, indent=1).encode())
        info = DatasetInfo(description=TABLES[name].told, features=TABLES[name].features)
        info.write_to_directory(str(folder / name))
    write_atomically(folder / "dataset_dict.json", json.dumps({"splits": list(shards)}).encode())


FORMATS: Mapping[str, Format] = {
    made.name: made
    for made in (
        Format("parquet", ".parquet", _parquet, 'datasets.load_dataset("{path}", "{table}", split="train")'),
        Format("datasets", ".arrow", _arrow_stream, 'datasets.load_from_disk("{path}/{table}")', finish=_finish_arrow),
        Format("jsonl", ".jsonl", _jsonl, 'datasets.load_dataset("{path}", "{table}", split="train")'),
        Format("webdataset", ".tar", _webdataset, 'datasets.load_dataset("{path}", "{table}", split="train")'),
    )
}


@contextmanager
def shard(format_: Format, path: Path, table: Table, read_image: ReadImage) -> Iterator[Write]:
    """Write a shard; `path` appears, synced to disk, only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    with format_.open(partial, table.features, read_image) as write:
        yield write
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def _arrow(rows: Sequence[Row], schema: pa.Schema, read_image: ReadImage) -> pa.Table:
    def embedded(image: ImageOf) -> dict[str, object]:
        return {"bytes": read_image(image.sha256), "path": f"{image.sha256}.png"}

    return pa.Table.from_pylist([_resolved(row, embedded) for row in rows], schema=schema)


def _images_of(row: Row) -> Iterator[ImageOf]:
    for value in row.values():
        yield from (item for item in (value if isinstance(value, list) else [value]) if isinstance(item, ImageOf))


def _resolved(row: Row, image_as: Callable[[ImageOf], object]) -> Row:
    def resolved(value: object) -> object:
        if isinstance(value, ImageOf):
            return image_as(value)
        if isinstance(value, list) and any(isinstance(item, ImageOf) for item in value):
            return [resolved(item) for item in value]
        return value

    return {name: resolved(value) for name, value in row.items()}
