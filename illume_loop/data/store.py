"""A folder of tokenised rows: parquet shards, and a manifest that names the tokenizer of their ids.

    manifest.json        the tokenizer's digest, how images were made square, the pieces of the sources
    shards/00000.parquet the rows of one piece and their counts; it exists only when it is whole
    left-out/00000.jsonl the rows of the piece that were left out, with their places and reasons
    left-out.jsonl       all rows that were left out, written when the last piece is done
    claims/00000         a lock held by the process that works on the piece; the kernel frees it when the process ends

This module works without torch, because `data ls` and `data show` use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from illume_loop.data.pixels import Fit
from illume_loop.data.readers import Piece
from illume_loop.data.rows import KINDS, Kind, Turn
from illume_loop.data.tally import Tally
from illume_loop.errors import CorruptArtifactError, NotFoundError, NoTokenisedDataError
from illume_loop.files import write_atomically

MANIFEST, LEFT_OUT = "manifest.json", "left-out.jsonl"
GROUP_ROWS = 32
"""The rows of a row group, which is read as a whole."""
_COUNTS = b"illume-loop"

_TURNS = pa.list_(pa.struct([("by", pa.string()), ("text", pa.string())]))
SCHEMA = pa.schema(
    [
        ("kind", pa.dictionary(pa.int8(), pa.string())),
        ("num_drawn", pa.int8()),
        ("file", pa.dictionary(pa.int32(), pa.string())),
        ("index", pa.int64()),
        ("key", pa.string()),
        ("text", pa.string()),
        ("turns", _TURNS),
        ("images", pa.list_(pa.binary())),
        ("ids", pa.list_(pa.list_(pa.int32()))),
    ]
)


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A tokenised row.

    `images` are the encoded images that it reads. `ids` are the codebook ids of the images that it draws, (L,) each.
    """

    kind: Kind
    text: str
    turns: tuple[Turn, ...]
    images: tuple[bytes, ...]
    ids: tuple[list[int], ...]
    place: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The request that a folder was made for. All processes and later calls must make the same request."""

    tokenizer: str
    """The sha256 of the parts of the model that turn pixels into ids."""
    tokens_per_image: int
    fit: Fit
    max_ids: int
    names: Mapping[str, str]
    images: str
    files: Mapping[str, int]
    """The sources' files with their sizes in bytes."""
    pieces: Sequence[Piece]

    def write(self, folder: Path) -> None:
        """Write the manifest into its folder."""
        write_atomically(folder / MANIFEST, json.dumps(asdict(self), indent=1).encode())

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Return the manifest of a folder. Raises NoTokenisedDataError, CorruptArtifactError."""
        path = folder / MANIFEST
        if not path.is_file():
            raise NoTokenisedDataError(path=folder)
        try:
            content = json.loads(path.read_bytes())
            parts = {"fit": Fit(**content["fit"]), "pieces": [Piece(**piece) for piece in content["pieces"]]}
            return cls(**content | parts)
        except (ValueError, TypeError, KeyError) as error:
            raise CorruptArtifactError(path=path, expected="a manifest", found=str(error)) from error

    def changed(self, other: Manifest) -> list[str]:
        """Return the names of the fields that differ, without the tokenizer."""
        one, two = asdict(self), asdict(other)
        return sorted(name for name in one if name != "tokenizer" and one[name] != two[name])


def shard_path(folder: Path, number: int) -> Path:
    """Return the path of a piece's shard."""
    return folder / "shards" / f"{number:05d}.parquet"


def list_path(folder: Path, number: int) -> Path:
    """Return the path of the list of a piece's left-out rows."""
    return folder / "left-out" / f"{number:05d}.jsonl"


@contextmanager
def shard_writer(path: Path, tally: Tally) -> Iterator[parquet.ParquetWriter]:
    """Yield the writer of a shard; put the shard durably at `path` when the block ends.

    `tally` must hold the shard's counts by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        with parquet.ParquetWriter(partial, SCHEMA, compression="zstd") as writer:
            yield writer
            writer.add_key_value_metadata({_COUNTS.decode(): json.dumps(tally.content())})
        # Sync before the rename, so that a shard under its name is whole even after a power cut.
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def tally_of(path: Path) -> Tally:
    """Return the counts of a shard. Raises CorruptArtifactError."""
    return Tally.of(json.loads(_opened(path).metadata.metadata[_COUNTS]))


class Tokenised:
    """A finished folder of tokenised rows, read row by row."""

    def __init__(self, folder: Path) -> None:
        """Open the folder.

        Raises NoTokenisedDataError, NotFoundError if the folder is not finished, CorruptArtifactError.
        """
        self.folder = folder
        self.manifest = Manifest.read(folder)
        self.paths = [shard_path(folder, number) for number in range(len(self.manifest.pieces))]
        missing = [path for path in self.paths if not path.exists()]
        if missing:
            raise NotFoundError(kind="shard (finish `illume-loop data tokenize`)", name=str(missing[0]))
        tables = [_opened(path).read(columns=["kind", "num_drawn"]) for path in self.paths]
        whole = pa.concat_tables(tables).unify_dictionaries() if tables else SCHEMA.empty_table()
        kinds = [str(kind) for kind in whole["kind"].to_pylist()]
        self.kinds: NDArray[np.int8] = np.array([KINDS.index(kind) for kind in kinds], np.int8)
        self.num_drawn: NDArray[np.int8] = whole["num_drawn"].to_numpy().astype(np.int8)
        groups = [
            (path, group, _opened(path).metadata.row_group(group).num_rows)
            for path in self.paths
            for group in range(_opened(path).metadata.num_row_groups)
        ]
        self._groups = [(path, group) for path, group, _ in groups]
        self._starts = np.cumsum([0, *(size for *_, size in groups)])

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.kinds)

    def tally(self) -> Tally:
        """Return the counts of all shards."""
        whole = Tally()
        for path in self.paths:
            whole.add(tally_of(path))
        return whole

    def rows_of(self, kind: Kind, *, drawn: bool) -> NDArray[np.int64]:
        """Return the numbers of the rows of a kind, rising; with `drawn`, only of rows with an image to draw."""
        chosen = self.kinds == KINDS.index(kind)
        return np.flatnonzero(chosen & (self.num_drawn > 0) if drawn else chosen)

    def __getitem__(self, number: int) -> StoredRow:
        """Return a row by its number. A row of a row group that was just read is cheap."""
        group = int(np.searchsorted(self._starts, number, side="right")) - 1
        path, inner = self._groups[group]
        row = _group(path, inner).slice(number - int(self._starts[group]), 1).to_pylist()[0]
        turns = tuple(Turn(turn["by"], turn["text"]) for turn in row["turns"])
        place = f"{row['file']}:{row['index']}"
        return StoredRow(row["kind"], row["text"], turns, tuple(row["images"]), tuple(row["ids"]), place)


@lru_cache(maxsize=256)
def _opened(path: Path) -> parquet.ParquetFile:
    try:
        return parquet.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifactError(path=path, expected="a whole shard", found=str(error).splitlines()[0]) from error


@lru_cache(maxsize=256)
def _group(path: Path, group: int) -> pa.Table:
    try:
        return _opened(path).read_row_group(group)
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifactError(path=path, expected="a whole shard", found=str(error).splitlines()[0]) from error
