"""`illume-loop rounds`: list, show, watch, cancel and retry the rounds of a run."""

from __future__ import annotations

from typing import Annotated

import typer

from illume_loop.cli import watch
from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_fields, print_json, say
from illume_loop.cli.rounds_table import print_rounds, update_sentence

app = typer.Typer(
    help="List, show, watch, cancel or retry the rounds of a run, or check its coordinator.", no_args_is_help=True
)

app.command("watch")(watch.watch)


@app.command("ls")
def ls(run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """List the rounds with their measurements and decisions."""
    from illume_db.rounds_table import rounds_table
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
    """Show everything about a round."""
    from illume_db.rounds_table import round_detail
    from illume_loop.cli.runs import found, open_run

    with open_run(run_dir) as run:
        row = found("round", index, round_detail(run.session, run.run_id, index))
    if as_json:
        print_json(row)
    else:
        print_fields({key: value for key, value in row.items() if key != "updates"})
        for update in row["updates"]:
            say(update_sentence(update))
        hint(f"next: illume-loop samples ls --round {index} --run-dir {run_dir}")


Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Reason, recorded in the run's event log.")]


@app.command("cancel")
def cancel(
    index: Annotated[int, typer.Argument(metavar="N", help="Number of the round, from 1.")],
    reason: Reason = "",
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Cancel a round in progress; workers drop its units, and the run continues with the next round."""
    from illume_db.runs import run_key
    from illume_loop.cli.runs import open_run
    from illume_loop.judge.reviews import reviewer_name
    from illume_loop.loop import rounds
    from illume_loop.loop.stages.train import forget_training

    with open_run(run_dir, writing=True) as run:
        by = reviewer_name(None)
        ended = rounds.cancel(run.session, run.run_id, index, by=by, reason=reason)
        key = run_key(run.session, run.run_id)
        run.session.commit()
        if not ended.num_held:
            # Otherwise the worker that holds the training deletes its checkpoints; it may be writing one now.
            forget_training(run.checkpoints, key, ended.round_id)
    if as_json:
        print_json({"round": index, "state": "cancelled", "was": ended.was, "units_dropped": ended.num_held, "by": by})
        return
    print(f"round {index} is cancelled (it was {ended.was}); workers drop {ended.num_held} units in progress")
    hint(f"next: illume-loop rounds retry {index} --run-dir {run_dir}   or   illume-loop start --run-dir {run_dir}")


@app.command("retry")
def retry(
    index: Annotated[int, typer.Argument(metavar="N", help="Number of a round that failed or was cancelled.")],
    reason: Reason = "",
    run_dir: RunDir = DEFAULT_RUN_DIR,
    as_json: AsJson = False,
) -> None:
    """Retry a failed or cancelled round: after the rounds in progress, a new round draws the same prompts."""
    from illume_loop.cli.runs import open_run
    from illume_loop.judge.reviews import reviewer_name
    from illume_loop.loop import rounds

    with open_run(run_dir, writing=True) as run:
        by = reviewer_name(None)
        was = rounds.retry(run.session, run.run_id, index, by=by, reason=reason)
        run.session.commit()
    if as_json:
        print_json({"round": index, "state": was, "retry": "waiting", "by": by})
        return
    print(f"round {index} will run again as a new round when the rounds in progress have ended")
    hint(f"next: illume-loop start --run-dir {run_dir}   (not needed if one is running)")


@app.command("health")
def health(run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """Check that a coordinator, on any host, leads the run; exit 3 if none does."""
    from illume_db.runs import leader_of
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
