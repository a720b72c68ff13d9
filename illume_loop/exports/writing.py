"""Writes an export to a folder: the tables as shards, a dataset card, and a state file.

    <table>/00000.parquet ...    the shards; `.jsonl`, `.tar` and `.arrow` in the other formats
    images/                      the PNG files, for JSON lines only
    README.md                    the dataset card, written last
    export.json                  the request, and the complete shards

Invariants:
- Memory holds one batch of rows at a time.
- An export that was killed continues after its last complete shard and ends with the same bytes.
- Rows that were added after the export began are not in it.
- No transaction stays open while files are written.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from illume_db.exports import last_ids, manifest_rounds
from illume_db.rounds_table import rounds_table
from illume_db.runs import run_row
from illume_db.versions import base_version
from illume_loop.errors import CorruptArtifactError, ExportChangedError, NotFoundError, UsageError
from illume_loop.exports.card import Origin, card
from illume_loop.exports.formats import FORMATS, IMAGES, Format, shard
from illume_loop.exports.tables import TABLES, Key, Row, Scope, Table
from illume_loop.files import output_folder, raising_storage_full, sha256_of, write_atomically
from illume_loop.loop.run_directory import LOCK, OpenRun, exclusive

STATE, CARD = "export.json", "README.md"
LAYOUT = 2
"""The layout of the tables. An export of another layout is not continued, because its rows have other columns."""
BATCH = 256
"""The number of rows read and written at once, each with its image."""
OnRows = Callable[[str, int], None]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """A request for an export: format, tables by name, and filters by round and acceptance; None filters nothing."""

    format: str
    tables: Sequence[str] = tuple(TABLES)
    round_index: int | None = None
    accepted: bool | None = None
    shard_rows: int = 10_000


def export(run: OpenRun, request: ExportRequest, folder: Path, on_rows: OnRows | None = None) -> dict[str, int]:
    """Write or continue an export of `run` in `folder`; return the rows by table.

    `on_rows` is called with (table, rows so far). Raises NotFoundError for an unknown round or table, UsageError if the
    folder holds other files, ExportChangedError if it holds another export, CorruptArtifactError for damaged images or
    shards, and StorageFullError.
    """
    for name in request.tables:
        if name not in TABLES:
            raise NotFoundError(f"there is no table '{name}'; there are {', '.join(TABLES)}")
    _check_folder(folder)
    scope = _scope(run, request)
    with raising_storage_full(folder):
        output_folder(folder)
        with exclusive(folder):
            state = _State.opened(folder, run_row(run.session, run.run_id)["key"], request, scope)
            scope = replace(scope, until=state.until, manifest=state.manifest)
            for name in request.tables:
                _write_table(run, TABLES[name], FORMATS[request.format], scope, request, state, folder, on_rows)
            files = {name: [entry["file"] for entry in state.shards(name)] for name in request.tables}
            if (finish := FORMATS[request.format].finish) is not None:
                finish(folder, {name: shards for name, shards in files.items() if shards})
            counts = {name: state.num_rows(name) for name in request.tables}
            text = card(_origin(run, scope), FORMATS[request.format], counts)
            write_atomically(folder / CARD, text.encode())
            return counts


class _State:
    """The state file of an export; it is written after each shard."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self._path, self._content = path, content
        self.until: Mapping[str, int] = content["until"]
        self.manifest: int | None = content["manifest"]

    @classmethod
    def opened(cls, folder: Path, run_key: str, request: ExportRequest, scope: Scope) -> _State:
        """Return the folder's state, or a new one. Raises ExportChangedError, CorruptArtifactError."""
        path = folder / STATE
        asked = {"run": run_key, "layout": LAYOUT, **asdict(request), "tables": list(request.tables)}
        if not path.exists():
            return cls(path, {"asked": asked, "until": scope.until, "manifest": scope.manifest, "shards": {}})
        content = json.loads(path.read_bytes())
        changed = sorted(name for name, value in asked.items() if content["asked"].get(name) != value)
        if changed:
            raise ExportChangedError(path=folder, names=", ".join(changed))
        for table, shards in content["shards"].items():
            for entry in shards:
                _check_shard(folder / table / entry["file"], entry)
        return cls(path, content)

    def shards(self, table: str) -> list[dict[str, Any]]:
        """Return the complete shards of a table: file, rows, last (the key of the last row), num_bytes, sha256."""
        found: list[dict[str, Any]] = self._content["shards"].get(table, [])
        return found

    def num_rows(self, table: str) -> int:
        """Return the number of rows in the complete shards of a table."""
        return sum(entry["rows"] for entry in self.shards(table))

    def add(self, table: str, path: Path, rows: int, last: Key) -> None:
        """Record a complete shard."""
        entry = {"file": path.name, "rows": rows, "last": last}
        entry |= {"num_bytes": path.stat().st_size, "sha256": sha256_of(path)}
        self._content["shards"].setdefault(table, []).append(entry)
        write_atomically(self._path, json.dumps(self._content, indent=1).encode())


def _check_folder(folder: Path) -> None:
    if not folder.exists() or (folder / STATE).exists():
        return
    # An export that was killed before its first complete shard leaves only these.
    ours = (*TABLES, IMAGES, LOCK)
    if not folder.is_dir() or any(entry.name not in ours for entry in folder.iterdir()):
        raise UsageError(f"{folder} holds other things than an export; name a new or empty directory with -o")


def _check_shard(path: Path, entry: Mapping[str, Any]) -> None:
    size = path.stat().st_size if path.exists() else None
    if size != entry["num_bytes"]:
        found = "none" if size is None else f"{size} bytes"
        raise CorruptArtifactError(path=path, expected=f"{entry['num_bytes']} bytes", found=found)


def _scope(run: OpenRun, request: ExportRequest) -> Scope:
    rounds = rounds_table(run.session, run.run_id)
    if request.round_index is not None and request.round_index not in [row["index"] for row in rounds]:
        raise NotFoundError(kind="round", name=request.round_index)
    curated = [index for index in manifest_rounds(run.session, run.run_id) if request.round_index in (None, index)]
    until = last_ids(run.session, run.run_id)
    manifest = curated[-1] if curated else None
    names_tokenizer = manifest is not None and any("tokenizer" in TABLES[name].features for name in request.tables)
    tokenizer = _tokenizer(run) if names_tokenizer else ""
    return Scope(run.run_id, until, manifest, tokenizer, request.round_index, request.accepted)


def _tokenizer(run: OpenRun) -> str:
    """Return the digest of the tokenizer of the run's image ids, which all versions have in common.

    It is empty if the run's backend is not ours or not installed here. `data tokenize` then refuses the ids.
    """
    from illume_loop.data.tokenizer import digest_of_checkpoint  # torch, which other exports do not need

    base = base_version(run.session, run.run_id)
    try:
        return digest_of_checkpoint(run.checkpoints.local_path(base.sha256))
    except (NotFoundError, CorruptArtifactError) as error:
        log.warning("the export does not name the tokenizer of its image ids, as the base cannot be read: %s", error)
        return ""


def _write_table(
    run: OpenRun,
    table: Table,
    format_: Format,
    scope: Scope,
    request: ExportRequest,
    state: _State,
    folder: Path,
    on_rows: OnRows | None,
) -> None:
    shards = state.shards(table.name)
    last: Key = tuple(shards[-1]["last"]) if shards else table.first
    whole = state.num_rows(table.name)

    def read(room: int) -> list[tuple[Key, Row]]:
        batch = table.read(run.session, scope, last, min(BATCH, room))
        run.session.commit()
        return batch

    batch = read(request.shard_rows)
    while batch:
        path = folder / table.name / f"{len(state.shards(table.name)):05d}{format_.ending}"
        rows = 0
        with shard(format_, path, table, run.images.read_bytes) as write:
            while batch:
                write([{name: row[name] for name in table.features} for _, row in batch])
                last, rows = batch[-1][0], rows + len(batch)
                if on_rows is not None:
                    on_rows(table.name, whole + rows)
                batch = read(request.shard_rows - rows) if rows < request.shard_rows else []
        state.add(table.name, path, rows, last)
        whole += rows
        batch = read(request.shard_rows)


def _origin(run: OpenRun, scope: Scope) -> Origin:
    return Origin(run_row(run.session, run.run_id), rounds_table(run.session, run.run_id), list(_limits(scope)))


def _limits(scope: Scope) -> Iterator[str]:
    yield "In TRL's text columns, image-token id N is `<image_N>`; give a tokenizer these as added tokens."
    if scope.manifest is not None:
        yield (
            f"The tables in TRL's layouts hold the manifest of round {scope.manifest}, which includes the rows of "
            "earlier manifests, without the replayed pairs from the base's pretraining."
        )
    if scope.round_index is not None:
        yield f"Only rows of round {scope.round_index}."
    if scope.accepted is not None:
        yield f"Only samples that {'became' if scope.accepted else 'did not become'} training rows."
