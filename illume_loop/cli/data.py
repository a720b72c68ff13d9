"""`illume-loop data`: tokenise image-text pairs, dialogues, edits and texts, and inspect the result."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from illume_loop.cli.options import AsJson
from illume_loop.cli.output import hint, print_fields, print_json, print_table

if TYPE_CHECKING:
    from illume_loop.data.tally import Tally

app = typer.Typer(help="Tokenise your own data for pretraining, and inspect it.", no_args_is_help=True)


class FitName(StrEnum):
    """The way to make images square."""

    CROP = "crop"
    PAD = "pad"


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of tokenised data.")]


@app.command("tokenize")
def tokenize(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Files (.tar, .parquet, .jsonl, .json), or folders with such files."),
    ],
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help="Model whose tokenizer is used.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the shards.")],
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", metavar="DIR", help="Folder that image paths start from. Default: the source file's folder."
        ),
    ] = None,
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field", metavar="FIELD=NAME", help="Name of a field in the source, such as caption=alt; repeatable."
        ),
    ] = None,
    fit: Annotated[FitName, typer.Option("--fit", help="How images to draw are made square.")] = FitName.CROP,
    max_crop: Annotated[
        float, typer.Option("--max-crop", min=0.0, max=1.0, help="Maximum share of an image that may be cropped.")
    ] = 0.2,
    max_ids: Annotated[
        int | None, typer.Option("--max-ids", min=1, help="Maximum ids per row. Default: the model's maximum.")
    ] = None,
    max_bad: Annotated[
        float,
        typer.Option("--max-bad", min=0.0, max=1.0, help="Maximum share of bad rows; beyond it the command fails."),
    ] = 0.05,
    shard_rows: Annotated[int, typer.Option("--shard-rows", min=1, help="Approximate rows per shard.")] = 10_000,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Images encoded at once.")] = 64,
    device: Annotated[str, typer.Option("--device", help="Device of the model: auto, cpu or cuda.")] = "auto",
    as_json: AsJson = False,
) -> None:
    """Tokenise SOURCE... to image ids and texts, or continue where the command was stopped.

    To share the work, run the same command in several processes; each takes one shard at a time.
    """
    from illume_loop.cli.exit_codes import INTERRUPTED
    from illume_loop.cli.progress import open_view
    from illume_loop.data.pixels import Fit
    from illume_loop.models.shipped import base_path
    from illume_loop.runtime import prepare
    from illume_loop.settings import RuntimeSettings

    prepare(RuntimeSettings())
    from illume_loop.data.tokenizer import open_tokenizer
    from illume_loop.data.tokenizing import TokenizeRequest, tokenize

    request = TokenizeRequest(
        sources,
        Fit(fit.value, max_crop),
        max_ids,
        images,
        _names(fields or []),
        shard_rows,
        max_bad,
        batch_size,
    )
    try:
        with open_view() as view:
            outcome = tokenize(
                request,
                open_tokenizer(base_path(model), device),
                model,
                out,
                lambda done, total, tally: view.update(
                    "shards", done, total, f"{tally.num_read} rows, {tally.num_bad} bad"
                ),
            )
    except KeyboardInterrupt:
        hint("\nillume-loop: stopped, complete shards are kept; the same command continues")
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        counts = {"shards": outcome.num_shards, "shards_left": outcome.num_left}
        print_json({"folder": str(out), **counts, **_told(outcome.tally)})
        return
    _print_counts(str(out), outcome.tally)
    if outcome.num_left:
        hint(f"other processes work on {outcome.num_left} shards; the last one to finish lists the rows left out")
    else:
        hint(
            f"next: illume-loop data show {out}   or   illume-loop pretrain --recipe FILE.toml --model {model} -o BASE"
        )


@app.command("ls")
def ls(folder: Folder, as_json: AsJson = False) -> None:
    """List the shards of a folder with their source files and row counts."""
    from illume_loop.data.store import Manifest, shard_path, tally_of

    rows = []
    for number, piece in enumerate(Manifest.read(folder).pieces):
        path = shard_path(folder, number)
        tally = tally_of(path) if path.exists() else None
        told = _told(tally) if tally else {}
        rows.append({"shard": path.name, "file": piece.file, "first": piece.first, "done": tally is not None, **told})
    if as_json:
        print_json(rows)
        return
    columns = ("shard", "file", "first row", "read", "kept", "left out")
    cells = (
        [row["shard"], row["file"], str(row["first"]), *(_cell(row, n) for n in ("read", "num_kept", "num_left_out"))]
        for row in rows
    )
    print_table(f"shards of {folder}", columns, cells)
    hint(f"next: illume-loop data show {folder}")


@app.command("show")
def show(
    folder: Folder,
    row: Annotated[int | None, typer.Argument(metavar="ROW", min=0, help="Number of a row.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a summary of a folder, or one of its rows."""
    from dataclasses import asdict

    from illume_loop.data.store import LEFT_OUT, Tokenised
    from illume_loop.errors import NotFoundError

    data = Tokenised(folder)
    if row is not None:
        if row >= len(data):
            raise NotFoundError(kind="row", name=f"{row} (of {len(data)})")
        found = data[row]
        told: dict[str, Any] = asdict(found) | {"images": [f"{len(image)} bytes" for image in found.images]}
    else:
        manifest = data.manifest
        told = {
            "rows": len(data),
            "tokenizer": manifest.tokenizer,
            "tokens_per_image": manifest.tokens_per_image,
            "fit": asdict(manifest.fit),
            "max_ids": manifest.max_ids,
            **_told(data.tally()),
            "list": str(folder / LEFT_OUT),
        }
    if as_json:
        print_json(told)
    else:
        print_fields(told)


def _names(fields: list[str]) -> dict[str, str]:
    from illume_loop.data.fields import ALSO_CALLED
    from illume_loop.errors import UsageError

    names = dict(field.partition("=")[::2] for field in fields)
    for field, name in names.items():
        if field not in ALSO_CALLED or not name:
            raise UsageError(f"--field takes FIELD=NAME with a field of {', '.join(ALSO_CALLED)}, not '{field}={name}'")
    return names


def _told(tally: Tally) -> dict[str, Any]:
    return {
        "read": tally.num_read,
        "num_kept": tally.num_kept,
        "kept": dict(tally.kept),
        "read_only": tally.num_read_only,
        "num_left_out": tally.left_out.total(),
        "left_out": dict(tally.left_out),
    }


def _cell(row: dict[str, Any], name: str) -> str | None:
    return str(row[name]) if name in row else None


def _print_counts(name: str, tally: Tally) -> None:
    cells = [(f"kept: {kind}", str(count)) for kind, count in sorted(tally.kept.items())]
    cells += [("of these, only to read (drawing would crop too much)", str(tally.num_read_only))]
    cells += [(f"left out: {reason}", str(count)) for reason, count in tally.left_out.most_common()]
    print_table(f"{name}: {tally.num_kept} of {tally.num_read} rows", ("", "rows"), cells)
