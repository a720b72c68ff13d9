"""`illume-loop models`: the model versions of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_fields, print_json, print_table, say

app = typer.Typer(help="List, show, promote, roll back or export the model versions of a run.", no_args_is_help=True)


@app.command("ls")
def ls(run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """List the model versions of the run, the base first."""
    from illume_db.versions import models_table
    from illume_loop.cli.runs import open_run

    with open_run(run_dir) as run:
        rows = models_table(run.session, run.run_id)
    if as_json:
        print_json(rows)
        return
    from illume_loop.report.headline import judged_by, share_of

    columns = ("name", "state", "parent", "round", "held-out, %", "judge and decode", "sha256")
    cells = (
        [
            *(row["name"], _state(row), row["parent"], _index(row["round"])),
            *(share_of(row["heldout"]), judged_by(row["heldout"] or {}) or None, row["sha256"][:12]),
        ]
        for row in rows
    )
    print_table("model versions (held-out: each version's largest comparison, with interval)", columns, cells)
    hint(f"next: illume-loop models show NAME --run-dir {run_dir}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Version, as in `models ls`.")],
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Show everything about one model version."""
    from illume_db.versions import model_detail
    from illume_loop.cli.runs import found, open_run

    with open_run(run_dir) as run:
        row = found("model version", name, model_detail(run.session, run.run_id, name))
    if as_json:
        print_json(row)
    else:
        print_fields(_in_words(row))
        hint(f"next: illume-loop sample PROMPT --model {name} --run-dir {run_dir}")


def _in_words(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a version's fields with its measurements as text: the headline, each comparison, each guard."""
    from illume_db.tables.versions import GUARDED
    from illume_loop.report.headline import best_decode, comparison, guard, headline

    in_words = ("heldout", "best_decode", "comparisons", "evaluations")
    shown = {key: value for key, value in row.items() if key not in in_words}
    guards = {one["suite"]: guard(one) for one in row["evaluations"] if one["suite"] in GUARDED}
    compared = {f"comparison {number}": comparison(one) for number, one in enumerate(row["comparisons"], start=1)}
    measured = {"heldout": headline(row["heldout"]), "best decode": best_decode(row["best_decode"])}
    return shown | measured | compared | guards


Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


@app.command("promote")
def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Version, as in `models ls`.")],
    run_dir: RunDir = DEFAULT_RUN_DIR,
    yes: Yes = False,
) -> None:
    """Make a model version active, even against the gate; the next round draws with it."""
    from illume_loop.cli.runs import open_run
    from illume_loop.judge.reviews import reviewer_name
    from illume_loop.loop.promotion import promote

    _confirm(f"Make {name} the active version?", yes)
    with open_run(run_dir, writing=True) as run:
        was = promote(run.session, run.run_id, name, by=reviewer_name(None))
        run.session.commit()
    say(f"{name} is now active (before: {was})")
    hint(f"next: illume-loop models ls --run-dir {run_dir}")


@app.command("rollback")
def rollback(run_dir: RunDir = DEFAULT_RUN_DIR, yes: Yes = False) -> None:
    """Make the parent of the active version active again; the next round draws with it."""
    from illume_loop.cli.runs import open_run
    from illume_loop.judge.reviews import reviewer_name
    from illume_loop.loop.promotion import rollback

    _confirm("Make the parent of the active version active again?", yes)
    with open_run(run_dir, writing=True) as run:
        was, now = rollback(run.session, run.run_id, by=reviewer_name(None))
        run.session.commit()
    say(f"{now} is now active (before: {was})")
    hint(f"next: illume-loop models ls --run-dir {run_dir}")


def _confirm(question: str, yes: bool) -> None:
    """Ask for confirmation. Raises typer.Abort if the answer is no, and UsageError without a terminal."""
    import sys

    from illume_loop.errors import UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("no terminal to ask for confirmation; give --yes")
    typer.confirm(question, abort=True)


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Version, as in `models ls`.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="New directory for the checkpoint.")],
    run_dir: RunDir = DEFAULT_RUN_DIR,
) -> None:
    """Write a version as a Hugging Face checkpoint for `from_pretrained`."""
    from illume_loop.cli.runs import open_run
    from illume_loop.exports.checkpoint import export_model

    with open_run(run_dir) as run:
        say(export_model(run, name, out))
    hint(f"next: load it as {out / 'README.md'} shows")


def _state(row: Mapping[str, Any]) -> str:
    return f"{row['state']}, under trial" if row["under_trial"] else str(row["state"])


def _index(round_index: int | None) -> str | None:
    return None if round_index is None else str(round_index)
