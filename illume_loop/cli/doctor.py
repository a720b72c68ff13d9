"""`illume-loop doctor`: check a run, and say how to fix each problem."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from illume_loop.loop.checkup import Finding


def doctor(
    run_dir: RunDir = DEFAULT_RUN_DIR,
    repair: Annotated[bool, typer.Option("--repair", help="Make a model version active again if none is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the run in DIR: database, schema, model versions, checkpoint, rounds. Exit 3 if a check fails."""
    from illume_loop.errors import RunUnwellError

    findings, repaired = _look(run_dir, repair)
    bad = [finding for finding in findings if finding.state == "bad"]
    if as_json:
        print_json(
            {
                "ok": not bad,
                "repaired": repaired,
                "checks": [
                    {"name": one.name, "state": one.state, "found": one.found, "todo": one.todo} for one in findings
                ],
            }
        )
    else:
        print_table("checks", ("check", "state", "found"), ([one.name, one.state, one.found] for one in findings))
        for one in findings:
            if one.todo:
                print(f"{one.name}: {one.todo}")
        if repaired:
            print(repaired)
    if bad:
        names = ", ".join(finding.name for finding in bad)
        raise RunUnwellError(count=len(bad), total=len(findings), names=names)
    if not as_json:
        hint(f"next: illume-loop rounds ls --run-dir {run_dir}")


def _look(run_dir: Path, repair: bool) -> tuple[Sequence[Finding], str | None]:
    """Return the findings, and the repair's message; with `repair`, it repairs the run before the checks."""
    from illume_db.migrate import current, head
    from illume_db.urls import sqlite_file
    from illume_loop.cli.exit_codes import ERROR_OPTIONS
    from illume_loop.cli.runs import database_for, open_run
    from illume_loop.loop.checkup import check_run, check_schema, missing_database
    from illume_loop.loop.promotion import repair as repair_run
    from illume_loop.loop.run_directory import read_marker

    ERROR_OPTIONS.run_dir = run_dir
    read_marker(run_dir)  # raises if the directory holds no run, even if the environment names a database
    url = database_for(run_dir)
    file = sqlite_file(url)
    if file is not None and not file.exists():
        # Opening a missing SQLite file would create an empty one.
        return [missing_database(file)], None
    schema = check_schema(current(url), head(), run_dir)
    if any(finding.state == "bad" for finding in schema):
        return schema, None
    repaired = None
    if repair:
        with open_run(run_dir, writing=True) as run:
            repaired = repair_run(run.session, run.run_id)
            run.session.commit()
    with open_run(run_dir) as run:
        return [*schema, *check_run(run)], repaired
