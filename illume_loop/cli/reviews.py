"""`illume-loop reviews`: add and list people's reviews of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from illume_loop.cli.options import DEFAULT_RUN_DIR, AsJson, RunDir
from illume_loop.cli.output import hint, print_json, print_table
from illume_loop.cli.samples import SampleId

if TYPE_CHECKING:
    from illume_db.reviews import ReviewRow

app = typer.Typer(help="Review whether samples show their prompts, or list the reviews.", no_args_is_help=True)


@app.command("add")
def add(
    sample_id: SampleId,
    agrees: Annotated[
        bool, typer.Option("--agree/--disagree", help="The image shows its prompt, or does not.", show_default=False)
    ],
    criterion: Annotated[
        list[str] | None,
        typer.Option("--criterion", metavar="NAME=agree|disagree", help="The same for one criterion; repeatable."),
    ] = None,
    comment: Annotated[str, typer.Option("--comment", metavar="TEXT", help="Comment, stored with the review.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace your earlier review.")] = False,
    reviewer: Annotated[
        str | None, typer.Option("--reviewer", metavar="NAME", help="Name of the reviewer. Default: your user name.")
    ] = None,
    run_dir: RunDir = DEFAULT_RUN_DIR,
) -> None:
    """Review a sample: say whether its image shows its prompt. `judge fit --labels human` learns from reviews."""
    from illume_db.reviews import NewReview, prompt_of_sample, put_review
    from illume_loop.cli.loading import open_domain
    from illume_loop.cli.runs import found, open_run
    from illume_loop.errors import ReviewExistsError
    from illume_loop.judge.reviews import criteria_in, reviewer_name
    from illume_loop.loop.prompts import prompt_of

    domain = open_domain(run_dir)
    with open_run(run_dir, writing=True) as run:
        row = found("sample", sample_id, prompt_of_sample(run.session, run.run_id, sample_id))
        questions = domain.questions(prompt_of(row).claim)
        criteria = criteria_in(criterion or [], questions, agrees=agrees)
        verdict = "agree" if agrees else "disagree"
        review = NewReview(reviewer_name(reviewer), verdict, criteria, comment.strip())
        if not put_review(run.session, sample_id, review, replace=replace):
            raise ReviewExistsError(sample=sample_id)
        run.session.commit()
    hint(f"next: illume-loop reviews ls --run-dir {run_dir}")


@app.command("ls")
def ls(run_dir: RunDir = DEFAULT_RUN_DIR, as_json: AsJson = False) -> None:
    """List the reviews, beside the checker's verdicts."""
    from illume_db.reviews import reviews_of_run
    from illume_loop.cli.runs import open_run

    with open_run(run_dir) as run:
        rows = reviews_of_run(run.session, run.run_id)
    if as_json:
        print_json([_as_json(row) for row in rows])
        return
    words = {True: "agrees", False: "disagrees", None: None}
    said = {True: "agree", False: "disagree", None: "differ"}
    cells = (
        (
            str(row.sample_id),
            str(row.round_index),
            row.prompt.text,
            said[row.agrees],
            words[row.checker],
            ", ".join(f"{name} {words[holds]}" for name, holds in row.criteria.items()),
            row.comment,
        )
        for row in rows
    )
    print_table("reviews", ("sample", "round", "prompt", "people", "checker", "criteria", "comment"), cells)
    hint(f"next: illume-loop judge fit --labels human -o calibration.json --run-dir {run_dir}")


def _as_json(row: ReviewRow) -> dict[str, Any]:
    prompt = row.prompt
    return {
        "sample": row.sample_id,
        "round": row.round_index,
        "prompt": prompt.text,
        "category": prompt.category,
        "key": prompt.key,
        "instruction": prompt.instruction,
        "target": prompt.target,
        "image_sha256": row.image_sha256,
        "agrees": row.agrees,
        "criteria": row.criteria,
        "comment": row.comment,
        "checker": row.checker,
    }
