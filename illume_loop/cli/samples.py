"""`illume-loop samples`: list, show, trace and export the samples of a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_fields, print_json, print_table, say

if TYPE_CHECKING:
    from illume_loop.artifacts.images import ImageStore

app = typer.Typer(help="List, show, trace or export the samples of a run.", no_args_is_help=True)


class ExportFormat(StrEnum):
    """The formats of `illume_loop.exports.formats`, repeated here because `--help` must not load pyarrow."""

    PARQUET = "parquet"
    DATASETS = "datasets"
    WEBDATASET = "webdataset"
    JSONL = "jsonl"


SampleId = Annotated[int, typer.Argument(metavar="ID", help="Id of the sample, as in `samples ls`.")]


@app.command("ls")
def ls(
    run_dir: RunDir = DEFAULT_RUN_DIR,
    round_index: Annotated[int | None, typer.Option("--round", metavar="N", help="Only samples of this round.")] = None,
    accepted: Annotated[
        bool | None, typer.Option("--accepted/--rejected", help="Only samples that became training rows, or did not.")
    ] = None,
    after: Annotated[int, typer.Option("--after", metavar="ID", help="Only samples after this id.")] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Maximum number of samples.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the samples, in the order of their ids."""
    from illume_db.samples import samples_page
    from illume_loop.cli.runs import open_run

    with open_run(run_dir) as run:
        rows = samples_page(
            run.session, run.run_id, round_index=round_index, accepted=accepted, after=after, limit=limit
        )
    if as_json:
        print_json(rows)
        return
    print_table("samples", ("id", "round", "model", "prompt", "score", "checker", "accepted"), map(_cells, rows))
    if len(rows) == limit:
        hint(f"next page: illume-loop samples ls --after {rows[-1]['id']} --limit {limit} --run-dir {run_dir}")


@app.command("show")
def show(sample_id: SampleId, run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """Show a sample with all its assessments."""
    from illume_db.samples import sample_detail
    from illume_loop.cli.assessments import fields_of
    from illume_loop.cli.runs import found, open_run

    with open_run(run_dir) as run:
        row = found("sample", sample_id, sample_detail(run.session, run.run_id, sample_id))
        if not as_json:
            _show_picture(run.images, row["image_sha256"])
    if as_json:
        print_json(row)
    else:
        assessments = {f"by {a['assessor']} {a['model'] or ''}".rstrip(): fields_of(a) for a in row["assessments"]}
        print_fields(row | {"assessments": assessments})
        hint(f"next: illume-loop samples lineage {sample_id} --run-dir {run_dir}")


@app.command("lineage")
def lineage(sample_id: SampleId, run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """Show the origin of a sample, and the manifests and models that it went into."""
    from illume_db import samples
    from illume_loop.cli.runs import found, open_run

    with open_run(run_dir) as run:
        row = found("sample", sample_id, samples.lineage(run.session, run.run_id, sample_id))
    if as_json:
        print_json(row)
    else:
        print_fields(row)


@app.command("export")
def export(
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="DIR", help="New or empty directory, or an export to continue.")
    ],
    export_format: Annotated[ExportFormat, typer.Option("--format", help="File format.")] = ExportFormat.PARQUET,
    table: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            metavar="NAME",
            help="samples, assessments, reviews, manifests, sft, vision-sft or preference; repeatable. Default: all.",
        ),
    ] = None,
    round_index: Annotated[int | None, typer.Option("--round", metavar="N", help="Only rows of this round.")] = None,
    accepted: Annotated[
        bool | None, typer.Option("--accepted/--rejected", help="Only samples that became training rows, or did not.")
    ] = None,
    shard_rows: Annotated[int, typer.Option("--shard-rows", min=1, max=10**7, help="Rows per file.")] = 10_000,
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Write samples, assessments and training rows to files. The same command continues an export that was killed."""
    from illume_loop.cli.progress import open_view
    from illume_loop.cli.runs import open_run
    from illume_loop.exports.tables import TABLES
    from illume_loop.exports.writing import ExportRequest, export

    request = ExportRequest(
        export_format.value, tuple(dict.fromkeys(table or TABLES)), round_index, accepted, shard_rows
    )
    with open_run(run_dir) as run, open_view() as view:
        counts = export(run, request, out, on_rows=lambda name, rows: view.update(f"export {name}", rows, None))
    if as_json:
        print_json({"path": str(out), "format": request.format, "rows": counts})
    else:
        print_table(f"exported to {out}", ("table", "rows"), ([name, f"{rows:,}"] for name, rows in counts.items()))
        hint(f"next: load the tables as {out / 'README.md'} shows")


def _show_picture(images: ImageStore, sha256: str) -> None:
    """Show the image if the terminal can, or else print its location; a missing image is only a warning."""
    from illume_loop.cli.images import print_picture, terminal_shows_images
    from illume_loop.cli.output import console
    from illume_loop.errors import CorruptArtifactError

    if not terminal_shows_images():
        say(images.location(sha256))
        return
    try:
        print_picture(console(), images.read(sha256), images.location(sha256))
    except CorruptArtifactError as error:
        hint(str(error))


def _cells(row: dict[str, object]) -> list[str | None]:
    from illume_loop.charts.numbers import number

    score = row["score"]
    return [
        str(row["id"]),
        str(row["round"]),
        str(row["model"]),
        str(row["prompt"]),
        number(score if isinstance(score, float) else None),
        {True: "right", False: "wrong"}.get(bool(row["passed"])) if row["passed"] is not None else None,
        None if row["accepted"] is None else "yes" if row["accepted"] else "no",
    ]
