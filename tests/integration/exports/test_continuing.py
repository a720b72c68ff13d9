"""A stopped export goes on to the same bytes, holds a batch in memory, and refuses what it cannot go on with."""

from __future__ import annotations

import json
import signal
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy import insert, select

from illume_db.sessions import open_engine, transaction
from illume_db.tables import Sample
from illume_loop.cli import samples
from illume_loop.errors import CorruptArtifactError, ExportChangedError, NotFoundError, UsageError
from illume_loop.exports import writing
from illume_loop.exports.tables import TABLES
from illume_loop.exports.writing import ExportRequest, export
from illume_loop.loop.run_directory import open_run
from tests.support.canned_run import small_settings, start
from tests.support.process import begin

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    start(small_settings(folder / "base", run__rounds=1), folder / "run")
    return folder / "run"


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class _StoppedError(Exception):
    pass


@pytest.mark.parametrize("name", ["parquet", "datasets", "jsonl", "webdataset"])
def test_a_stopped_export_ends_with_the_same_bytes(run_dir: Path, tmp_path: Path, name: str) -> None:
    request = ExportRequest(name, shard_rows=4)
    told = list[tuple[str, int]]()

    def stop(table: str, rows: int) -> None:
        told.append((table, rows))
        if (table, rows) == ("assessments", 8):
            raise _StoppedError

    with open_run(run_dir) as run:
        whole = export(run, request, tmp_path / "whole")
        with pytest.raises(_StoppedError):
            export(run, request, tmp_path / "stopped", on_rows=stop)
        assert any(path.suffix == ".part" for path in (tmp_path / "stopped").rglob("*"))
        told.clear()
        assert export(run, request, tmp_path / "stopped", on_rows=lambda *row: told.append(row)) == whole
        assert told[0] == ("assessments", 8), "what is whole is not written again"
        assert export(run, request, tmp_path / "stopped") == whole
    found = _files(tmp_path / "stopped")
    assert {name: found.pop(name) == data for name, data in _files(tmp_path / "whole").items()} == dict.fromkeys(
        _files(tmp_path / "whole"), True
    )
    assert found == {}


def test_a_killed_process_leaves_an_export_that_goes_on(run_dir: Path, tmp_path: Path) -> None:
    arguments = ("samples", "export", "-o", "out", "--shard-rows", "2", "--run-dir", run_dir)
    process = begin(*arguments, cwd=tmp_path)
    state = tmp_path / "out" / "export.json"
    while process.poll() is None and not state.exists():
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with open_run(run_dir) as run:
        counts = export(run, ExportRequest("parquet", shard_rows=2), tmp_path / "out")
        assert counts == export(run, ExportRequest("parquet", shard_rows=2), tmp_path / "whole")
    for name in ("samples", "assessments", "manifests"):
        assert _files(tmp_path / "out" / name).items() >= _files(tmp_path / "whole" / name).items()


def test_rows_that_come_later_are_left_out(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_run(run_dir) as run:
        scope = writing._scope(run, ExportRequest("parquet"))
        last = scope.until["samples"]
        monkeypatch.setattr(writing, "last_ids", lambda *_: {"samples": last - 5, "assessments": 0})
        counts = export(run, ExportRequest("parquet", ("samples", "assessments")), tmp_path / "out")
        assert counts == {"samples": 13, "assessments": 0}
        monkeypatch.undo()
        assert export(run, ExportRequest("parquet", ("samples", "assessments")), tmp_path / "out") == counts


@contextmanager
def _many(run_dir: Path, factor: int) -> Iterator[int]:
    """The run with `factor` times as many samples, for as long as the block lasts: further draws of its images."""
    engine = open_engine(f"sqlite:///{run_dir / 'loop.sqlite'}")
    with transaction(engine) as session:
        rows = [
            {
                "round_id": row.round_id,
                "prompt_id": row.prompt_id,
                "sample_index": row.sample_index + 1000 * copy,
                "seed": row.seed,
                "model_version_id": row.model_version_id,
                "image_ids": row.image_ids,
                "image_sha256": row.image_sha256,
                "created_at": row.created_at,
            }
            for row in session.scalars(select(Sample))
            for copy in range(1, factor)
        ]
        if rows:
            session.execute(insert(Sample), rows)
        count = len(list(session.scalars(select(Sample.id))))
    try:
        yield count
    finally:
        with transaction(engine) as session:
            for sample in session.scalars(select(Sample).where(Sample.sample_index >= 1000)):
                session.delete(sample)
        engine.dispose()


def test_memory_is_flat_in_the_number_of_rows(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "BATCH", 16)
    peaks = {}
    for factor in (4, 40):
        with _many(run_dir, factor) as count, open_run(run_dir) as run:
            in_arrow = [pa.total_allocated_bytes()]
            tracemalloc.start()
            counts = export(
                run,
                ExportRequest("parquet", ("samples",)),
                tmp_path / f"{factor}",
                on_rows=lambda *_, seen=in_arrow: seen.append(pa.total_allocated_bytes()),
            )
            peaks[count] = tracemalloc.get_traced_memory()[1] + max(in_arrow) - in_arrow[0]
            tracemalloc.stop()
            assert counts == {"samples": count}
    small, large = sorted(peaks)
    assert large == 10 * small
    # The writer of parquet keeps the place of each batch until the file ends.
    assert peaks[large] < 1.5 * peaks[small]


def test_what_cannot_be_gone_on_with_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with open_run(run_dir) as run:
        export(run, ExportRequest("parquet", ("samples",), shard_rows=5), tmp_path / "out")
        with pytest.raises(ExportChangedError, match=r"\(format, tables\)"):
            export(run, ExportRequest("jsonl", ("samples", "sft"), shard_rows=5), tmp_path / "out")
        shard = tmp_path / "out" / "samples" / "00001.parquet"
        shard.write_bytes(shard.read_bytes()[:-1])
        with pytest.raises(CorruptArtifactError, match=r"00001\.parquet"):
            export(run, ExportRequest("parquet", ("samples",), shard_rows=5), tmp_path / "out")
        with pytest.raises(NotFoundError, match="no round '9'"):
            export(run, ExportRequest("parquet", round_index=9), tmp_path / "new")
        with pytest.raises(NotFoundError, match="no table 'prompts"):
            export(run, ExportRequest("parquet", ("prompts",)), tmp_path / "new")
        assert not (tmp_path / "new").exists()
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "thesis.tex").touch()
        with pytest.raises(UsageError, match="holds other things than an export"):
            export(run, ExportRequest("parquet"), tmp_path / "full")


def test_the_command_tells_rows_and_the_card_how_to_read_them(run_dir: Path, tmp_path: Path, capsys: Captured) -> None:
    samples.export(tmp_path / "out", accepted=True, round_index=1, run_dir=run_dir, as_json=True)
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert set(told["rows"]) == set(TABLES)
    with open_run(run_dir) as run:
        assert told["rows"]["samples"] == len(samples_of_manifest(run)) > 0
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\npretty_name: ")
    assert f"| `samples` | {told['rows']['samples']} |" in card
    assert "Only rows of round 1." in card
    assert "Only samples that became training rows." in card
    assert 'datasets.load_dataset("PATH", "samples", split="train")' in card
    samples.export(tmp_path / "out", accepted=True, round_index=1, run_dir=run_dir)
    captured = capsys.readouterr()
    assert "preference" in captured.out
    assert "README.md" in captured.err


def samples_of_manifest(run: Any) -> set[int]:
    from illume_db.exports import examples_after

    rows = examples_after(run.session, run.run_id, (0, -1), 1000, of_samples=True)
    return {row["sample"] for row in rows}
