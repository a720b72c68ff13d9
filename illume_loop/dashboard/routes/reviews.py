"""The review page: one sample after the other, by mouse or keyboard.

Reviewers see the image, its prompt and its criteria, but not the judge's score: that is shown for the previous sample,
after they have decided.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, Response

from illume_db.review_queue import num_of_reviewer, unreviewed
from illume_db.reviews import NewReview, num_reviewed, prompt_of_sample, put_review, take_back_review
from illume_db.samples import sample_detail
from illume_loop.dashboard.dependencies import (
    INT4,
    INT8,
    NO_NUL,
    CurrentRun,
    Reviewer,
    RoundChoice,
    RunDep,
    SourceDep,
    check_csrf,
    round_shown,
)
from illume_loop.dashboard.render import page, redirect
from illume_loop.domains import get_domain
from illume_loop.errors import NotFoundError
from illume_loop.judge.reviews import criteria_in, next_review
from illume_loop.loop.prompts import prompt_of
from illume_loop.protocols import Question

router = APIRouter(prefix="/runs/{run_id}/review")
MOST_COMMENT = 2000
Verdict = Literal["agree", "disagree", "skip"]
Reason = Literal["chosen", "disagreement", "boundary", "random", "overlap"]


@router.get("", response_class=HTMLResponse)
def review(
    request: Request,
    run: RunDep,
    source: SourceDep,
    reviewer: Reviewer,
    index: RoundChoice = None,
    last: Annotated[int | None, Query(ge=1, le=INT8, description="Sample that was reviewed before.")] = None,
) -> Response:
    """Show the reviewer's next sample of a round, and their previous sample with its verdict and score."""
    with source.reading() as session:
        shown = round_shown(session, run.id, index)
        values: dict[str, Any] = {"sample": None, "criteria": [], "done": 0, "reviewed": 0, "reason": ""}
        if shown.id is not None:
            done = num_of_reviewer(session, shown.id, reviewer.name)
            chosen = next_review(unreviewed(session, shown.id, reviewer.name), run.assessor, done, run.seed)
            values |= {"done": done, "reviewed": num_reviewed(session, shown.id)}
            if chosen is not None:
                sample = sample_detail(session, run.id, chosen.sample_id)
                names = dict.fromkeys(question.criterion for question in _questions(session, run, chosen.sample_id))
                values |= {"sample": sample, "criteria": list(names), "reason": chosen.reason}
        before = None if last is None else sample_detail(session, run.id, last)
    wanted = run.settings["curate"].get("reviews", 0)
    return page(
        request,
        "review.html",
        run=run,
        tab="review",
        numbers=shown.numbers,
        shown=shown.index,
        before=before,
        wanted=wanted,
        **values,
    )


@router.post("", dependencies=[Depends(check_csrf)])
def decide(
    request: Request,
    run: RunDep,
    source: SourceDep,
    reviewer: Reviewer,
    sample: Annotated[int, Form(ge=1, le=INT8)],
    verdict: Annotated[Verdict, Form()],
    index: Annotated[int, Form(alias="round", ge=1, le=INT4)],
    reason: Annotated[Reason, Form()] = "chosen",
    comment: Annotated[str, Form(max_length=MOST_COMMENT, pattern=NO_NUL)] = "",
    criterion: Annotated[list[str] | None, Form(max_length=20)] = None,
) -> Response:
    """Store a review. Each `criterion` is "name=agree", "name=disagree", or "name=" for one that is not decided."""
    decided = [text for text in criterion or [] if "=" in text and not text.endswith("=")]
    with source.writing() as session:
        questions = _questions(session, run, sample)
        criteria = criteria_in(decided, questions, agrees=verdict == "agree") if verdict != "skip" else {}
        put_review(session, sample, NewReview(reviewer.name, verdict, criteria, comment.strip(), reason), replace=True)
    return redirect(request, f"/runs/{run.id}/review?round={index}&last={sample}")


@router.post("/undo", dependencies=[Depends(check_csrf)])
def undo(request: Request, run: RunDep, source: SourceDep, reviewer: Reviewer) -> Response:
    """Take back the reviewer's last review in this run; its sample comes up again."""
    with source.writing() as session:
        sample_id = take_back_review(session, run.id, reviewer.name)
        sample = None if sample_id is None else sample_detail(session, run.id, sample_id)
    where = "" if sample is None else f"?round={sample['round']}"
    return redirect(request, f"/runs/{run.id}/review{where}")


def _questions(session: Session, run: CurrentRun, sample_id: int) -> list[Question]:
    """Return the questions of a sample's prompt. Raises NotFoundError."""
    prompt = prompt_of_sample(session, run.id, sample_id)
    if prompt is None:
        raise NotFoundError(kind="sample", name=sample_id)
    domain = get_domain(run.settings["run"]["domain"])
    return domain.questions(prompt_of(prompt).claim)
