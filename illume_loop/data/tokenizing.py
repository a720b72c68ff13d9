"""Offline tokenising: images become codebook ids, texts stay as they are, each piece of a file becomes one shard.

Invariants:
- A shard that exists is whole and is never written again.
- One process at a time works on a piece, even after another process was killed.
- The same sources and model give the same rows in the same shards, with any number of processes and restarts.
- Rows that cannot be used are left out, counted and listed with their place. More of them than a bound end the work.
- Image ids that a row gives are kept as they are, if this tokenizer made them; no image is tokenised twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from illume_loop.artifacts.locks import claimed, exclusive_lock
from illume_loop.data.fields import BadRow, Fields
from illume_loop.data.image_folder import ImageFolder
from illume_loop.data.layout import longest
from illume_loop.data.pixels import CENTRE, Fit, open_image
from illume_loop.data.readers import Found, files_of, pieces_of, rows_of
from illume_loop.data.rows import Ids, Place, Row, understood
from illume_loop.data.store import (
    GROUP_ROWS,
    LEFT_OUT,
    MANIFEST,
    SCHEMA,
    Manifest,
    list_path,
    shard_path,
    shard_writer,
    tally_of,
)
from illume_loop.data.tally import CROPPED, LeftOut, Tally, write_list
from illume_loop.data.tokenizer import ids_of, tokenizer_digest
from illume_loop.errors import (
    DataSourceError,
    OtherTokenizerError,
    TokensChangedError,
    TooManyBadRowsError,
    UsageError,
)
from illume_loop.files import raising_storage_full, write_atomically
from illume_loop.models.illume.backend import IllumeBackend

ENOUGH_TO_JUDGE = 1_000
"""The rows from which too many bad ones end the work at once. With fewer rows the check waits for the end."""

OnRows = Callable[[int, int, Tally], None]
"""Called with (pieces done, total pieces, counts so far)."""


@dataclass(frozen=True, slots=True)
class TokenizeRequest:
    """A request to tokenise sources, with its settings."""

    sources: Sequence[Path]
    fit: Fit = CENTRE
    max_ids: int | None = None
    """The most ids of a sequence; the model's own bound by default."""
    images: Path | None = None
    """The folder of the images that rows name by path; the folder of the rows' file by default."""
    names: Mapping[str, str] = field(default_factory=dict)
    shard_rows: int = 10_000
    max_bad: float = 0.05
    batch_size: int = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """The state of a folder. The `num_left` unfinished pieces are left to other processes."""

    tally: Tally
    num_shards: int
    num_left: int


def tokenize(
    request: TokenizeRequest, backend: IllumeBackend, model: str, folder: Path, on_rows: OnRows = lambda *_: None
) -> Outcome:
    """Tokenise sources into a folder, or go on with a folder that was begun.

    `model` is the model's name for messages. Raises DataSourceError, OtherTokenizerError, TokensChangedError,
    TooManyBadRowsError, StorageFullError.
    """
    with raising_storage_full(folder):
        manifest = _manifest(request, backend, model, folder)
        work = _Work(request, manifest, backend, folder, on_rows)
        for number in range(len(manifest.pieces)):
            work.piece(number)
        return work.outcome()


def _manifest(request: TokenizeRequest, backend: IllumeBackend, model: str, folder: Path) -> Manifest:
    """Return the folder's manifest if it matches the request; write it if there is none yet.

    Raises DataSourceError, OtherTokenizerError, TokensChangedError.
    """
    files = [file for source in request.sources for file in files_of(source.absolute())]
    pieces = [piece for file in files for piece in pieces_of(file, request.shard_rows)]
    if not pieces:
        raise DataSourceError(path=", ".join(map(str, request.sources)), reason="it holds no rows")
    config = backend.model.config
    asked = Manifest(
        tokenizer=tokenizer_digest(backend),
        tokens_per_image=backend.tokens_per_image,
        fit=request.fit,
        max_ids=request.max_ids or int(config.text_config.max_position_embeddings),
        names=dict(request.names),
        images=str(request.images.absolute()) if request.images else "",
        files={str(file): file.stat().st_size for file in files},
        pieces=pieces,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(folder / "claims" / "manifest"):
        if not (folder / MANIFEST).exists():
            asked.write(folder)
            return asked
        there = Manifest.read(folder)
    if there.tokenizer != asked.tokenizer:
        raise OtherTokenizerError(path=folder, found=there.tokenizer[:12], model=model, expected=asked.tokenizer[:12])
    if changed := there.changed(asked):
        raise TokensChangedError(path=folder, names=", ".join(changed))
    return there


class _Work:
    """The work of one process on a folder."""

    def __init__(
        self, request: TokenizeRequest, manifest: Manifest, backend: IllumeBackend, folder: Path, on_rows: OnRows
    ) -> None:
        self.request, self.manifest, self.backend, self.folder, self.on_rows = (
            request,
            manifest,
            backend,
            folder,
            on_rows,
        )
        self.side = int(backend.model.config.image_size)
        self.done = {n: tally_of(path) for n in range(len(manifest.pieces)) if (path := self._shard(n)).exists()}

    def piece(self, number: int) -> None:
        """Tokenise a piece, unless it is done or another process works on it."""
        with claimed(self.folder / "claims" / f"{number:05d}") as is_ours:
            if not is_ours:
                return
            if not self._shard(number).exists():
                self._write(number)
            self.done[number] = tally_of(self._shard(number))
        self.on_rows(len(self.done), len(self.manifest.pieces), self._tally())

    def outcome(self) -> Outcome:
        """Return the folder's state; if all pieces are done, join their lists of left-out rows into one.

        Raises TooManyBadRowsError.
        """
        paths = [self._shard(number) for number in range(len(self.manifest.pieces))]
        self.done = {number: tally_of(path) for number, path in enumerate(paths) if path.exists()}
        left = len(paths) - len(self.done)
        if not left:
            lists = (list_path(self.folder, number).read_bytes() for number in range(len(paths)))
            write_atomically(self.folder / LEFT_OUT, b"".join(lists))
            self._judge(self._tally(), self.folder / LEFT_OUT)
        return Outcome(self._tally(), len(self.done), left)

    def _write(self, number: int) -> None:
        piece = self.manifest.pieces[number]
        tally, left_out = Tally(), list[LeftOut]()
        folder = ImageFolder(Path(self.manifest.images or Path(piece.file).parent))
        with shard_writer(self._shard(number), tally) as writer:
            rows = rows_of(piece)
            while found := list(islice(rows, GROUP_ROWS)):
                self._write_group(writer, found, folder, tally, left_out)
                seen = self._tally(tally)
                self.on_rows(len(self.done), len(self.manifest.pieces), seen)
                if seen.num_read >= ENOUGH_TO_JUDGE and seen.bad_share > self.request.max_bad:
                    write_list(list_path(self.folder, number), left_out)
                    self._judge(seen, list_path(self.folder, number).parent)
            # Write the list before the shard gets its name, so that every shard has its list.
            write_list(list_path(self.folder, number), left_out)

    def _write_group(
        self,
        writer: parquet.ParquetWriter,
        found: Sequence[Found],
        folder: ImageFolder,
        tally: Tally,
        left_out: list[LeftOut],
    ) -> None:
        kept: list[tuple[Row, list[Image.Image | Ids]]] = []
        for place, fields in found:
            tally.num_read += 1
            read = self._row(place, fields, folder)
            if isinstance(read, BadRow):
                tally.left_out[read.reason] += 1
                left_out.append(LeftOut(place, read))
            else:
                kept.append(read)
        squares = [one for _, drawn in kept for one in drawn if isinstance(one, Image.Image)]
        ids = iter(ids_of(self.backend, squares, self.request.batch_size))
        rows = []
        for row, drawn in kept:
            tally.kept[row.kind] += 1
            tally.num_read_only += row.kind == "pair" and not drawn
            rows.append(_columns(row, [next(ids) if isinstance(one, Image.Image) else one for one in drawn]))
        if rows:
            writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), row_group_size=GROUP_ROWS)

    def _row(
        self, place: Place, fields: Fields | BadRow, folder: ImageFolder
    ) -> tuple[Row, list[Image.Image | Ids]] | BadRow:
        """Return a row with the squares or ids of its images to draw, or the BadRow that says what is wrong.

        Every error becomes a BadRow. If all rows have it, the bound on bad rows ends the work.
        """
        if isinstance(fields, BadRow):
            return fields
        try:
            return self._checked(understood(place, fields, self.manifest.names, folder.read))
        except BadRow as problem:
            return problem
        except Exception as error:
            return BadRow("unexpected error", f"{type(error).__name__}: {error}")

    def _checked(self, row: Row) -> tuple[Row, list[Image.Image | Ids]]:
        """Return the row and the squares or ids of its images to draw; none for a pair that can only be read.

        Raises BadRow.
        """
        fit = self.manifest.fit
        drawn: list[Image.Image | Ids] = []
        for data in row.drawn:
            if isinstance(data, tuple):
                self._check_ids(data, row.tokenizer)
                drawn.append(data)
                continue
            image = open_image(data)
            if fit.accepts(*image.size):
                drawn.append(fit.square(image, self.side))
            elif row.kind != "pair":
                raise BadRow(CROPPED, f"{image.width} x {image.height}")
        for data in row.read:
            if data not in row.drawn:
                open_image(data)
        ids = [[0] * self.manifest.tokens_per_image] * len(drawn)
        try:
            length = longest(row.kind, row, len(row.read), ids, self.backend.sequences)
        except UsageError as error:
            raise BadRow("text with special ids", str(error)) from None
        if length > self.manifest.max_ids:
            raise BadRow("too long", f"{length} ids, and the bound is {self.manifest.max_ids}")
        return row, drawn

    def _check_ids(self, ids: Ids, tokenizer: str) -> None:
        """Raise BadRow unless the ids are those of one image of the folder's tokenizer."""
        if tokenizer != self.manifest.tokenizer:
            made_by = f"{tokenizer[:12]}... made them, and the model's tokenizer is {self.manifest.tokenizer[:12]}..."
            raise BadRow("image ids of another tokenizer", made_by)
        size = int(self.backend.model.config.codebook_size)
        if len(ids) != self.manifest.tokens_per_image or max(ids) >= size:
            bound = f"an image has {self.manifest.tokens_per_image} ids below {size}"
            raise BadRow("wrong image ids", f"{len(ids)} ids up to {max(ids)}, and {bound}")

    def _judge(self, tally: Tally, path: Path) -> None:
        if tally.bad_share > self.request.max_bad:
            raise TooManyBadRowsError(
                bad=tally.num_bad,
                read=tally.num_read,
                share=f"{tally.bad_share:.1%}",
                bound=f"{self.request.max_bad:.1%}",
                reason=tally.worst,
                path=path,
            )

    def _tally(self, *more: Tally) -> Tally:
        whole = Tally()
        for part in (*self.done.values(), *more):
            whole.add(part)
        return whole

    def _shard(self, number: int) -> Path:
        return shard_path(self.folder, number)


def _columns(row: Row, ids: Sequence[Sequence[int]]) -> dict[str, object]:
    return {
        "kind": row.kind,
        "num_drawn": len(ids),
        "file": row.place.file,
        "index": row.place.index,
        "key": row.place.key,
        "text": row.text,
        "turns": [{"by": turn.by, "text": turn.text} for turn in row.turns],
        "images": list(row.read),
        "ids": ids,
    }
