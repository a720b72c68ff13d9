"""`illume-loop rounds`: what each round did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from illume_loop.cli import watch
from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_fields, print_json, print_table

app = typer.Typer(help="Rounds: list them, show one, watch them, or check that they go on.", no_args_is_help=True)

COLUMNS = (
    "round",
    "model",
    "held-out",
    "gain",
    "judge\nAUC",
    "diversity",
    "under-\nstanding",
    "accepted",
    "decision",
)
OPTIONAL = {"editing": "editing", "judge_drift": "drift,\nAUC"}
"""Columns of what not every run measures: there when any round has it."""

app.command("watch")(watch.watch)


@app.command("ls")
def ls(run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """List the rounds with their estimates and decisions."""
    from db.queries.rounds import rounds_table
    from illume_loop.cli.runs import open_run

    with open_run(run_dir) as run:
        rows = rounds_table(run.session, run.run_id)
    if as_json:
        print_json(rows)
    else:
        print_rounds(rows)
        hint(f"next: illume-loop rounds show N --run-dir {run_dir}")


@app.command("show")
def show(
    index: Annotated[int, typer.Argument(metavar="N", help="Number of the round, from 1.")],
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Show everything about one round."""
    from db.queries.rounds import round_detail
    from illume_loop.cli.runs import found, open_run

    with open_run(run_dir) as run:
        row = found("round", index, round_detail(run.session, run.run_id, index))
    if as_json:
        print_json(row)
    else:
        print_fields(row)
        hint(f"next: illume-loop samples ls --round {index} --run-dir {run_dir}")


@app.command("health")
def health(run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """Check that a coordinator of workers leads the run, this host's or another; exit 3 when none does."""
    from db.queries.runs import leader_of
    from illume_loop.cli.runs import open_run
    from illume_loop.errors import NoCoordinatorError

    with open_run(run_dir) as run:
        leader = leader_of(run.session, run.run_id)
    if as_json:
        print_json({"ok": leader is not None, "leader": leader})
    if leader is None:
        raise NoCoordinatorError(path=run_dir)
    if not as_json:
        hint(f"{leader} leads the run in {run_dir}")


def print_rounds(rows: Sequence[Mapping[str, Any]]) -> None:
    """The table that ends `start`: for each round a line of the parent and one of the candidate, then the reasons."""
    more = [column for column in OPTIONAL if any(row[column] for row in rows)]
    columns = (*COLUMNS[:-2], *(OPTIONAL[column] for column in more), *COLUMNS[-2:])
    title = "rounds (shares in percent, with intervals)"
    print_table(title, columns, (cells for row in rows for cells in cells_of(row, more)))
    for row in rows:
        if row["reasons"]:
            print(f"round {row['index']} {row['decision'] or row['state']}: {'; '.join(row['reasons'])}")


def cells_of(row: Mapping[str, Any], more: Sequence[str] = ()) -> Iterator[Sequence[str | None]]:
    """The two lines of a round in a table with COLUMNS, and with `more` of the optional ones before the last two."""
    from illume_loop.report.numbers import gain, interval, number, percent

    heldout, diversity, understanding = row["heldout"], row["diversity"], row["understanding"]
    yield (
        str(row["index"]),
        row["parent"],
        interval(heldout["parent"]),
        "",
        number(row["judge_auc"]),
        number(diversity["parent"]),
        percent(understanding["parent"]),
        *(_optional(row, column, "parent") for column in more),
        f"{row['accepted']} of {row['samples']}",
        "",
    )
    yield (
        "",
        f"→ {row['candidate']}" if row["candidate"] else "",
        interval(heldout["candidate"]),
        gain(heldout["delta"]),
        "",
        number(diversity["candidate"]),
        percent(understanding["candidate"]),
        *(_optional(row, column, "candidate") for column in more),
        "",
        row["decision"] or row["state"],
    )


def _optional(row: Mapping[str, Any], column: str, side: str) -> str:
    from illume_loop.report.numbers import drift, interval

    found = row[column]
    if found is None:
        return ""
    if column == "editing":
        return interval(found[side])
    return drift(found) if side == "candidate" else ""
