"""`illume-loop report`: a run as one page that can be mailed, with its curves as PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from illume_loop.cli.output import hint, say


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the report.")],
    study: Annotated[
        list[Path] | None,
        typer.Option("--study", metavar="DIR", help="Directory of a study to include; repeatable."),
    ] = None,
) -> None:
    """Write a run as one self-contained HTML page, with its plots as PNG files and its settings."""
    from illume_loop.ablate.mailed import tables_for
    from illume_loop.cli.runs import open_run
    from illume_loop.report.mailed import write_report

    with open_run(run_dir) as run:
        for path in write_report(run, out, tables_for(run.path, study or [])):
            say(path)
    hint(f"next: mail {out / 'report.html'}; it needs no other file")
