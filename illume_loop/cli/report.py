"""`illume-loop report`: a run as one page that can be mailed, with its curves as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from illume_loop.cli.output import hint, say


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of the run.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Where the report is written.")],
    study: Annotated[
        list[Path] | None,
        typer.Option("--study", metavar="DIR", help="Directory of a study whose table is to be in it; repeatable."),
    ] = None,
) -> None:
    """Write one self-contained HTML page of a run, PNG plots beside it, and the settings that repeat it."""
    from illume_loop.ablate.mailed import tables_for
    from illume_loop.cli.runs import open_run
    from illume_loop.report.mailed import write_report

    with open_run(run_dir) as run:
        for path in write_report(run, out, tables_for(run.path, study or [])):
            say(path)
    hint(f"next: mail {out / 'report.html'}; it needs no other file")
