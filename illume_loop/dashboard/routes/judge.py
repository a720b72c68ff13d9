"""The judge page: calibration, mistakes by criterion, drift, and agreement with people."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, Response

from illume_db.judging import judged_samples
from illume_db.review_queue import overlaps, random_share, reviewers_of_run
from illume_db.reviews import reviews_of_run
from illume_db.rounds_table import last_rounds
from illume_loop.charts.reliability import reliability_plot
from illume_loop.dashboard.dependencies import CurrentRun, RoundChoice, RunDep, SourceDep, round_shown
from illume_loop.dashboard.render import page
from illume_loop.errors import NotFoundError, TooFewLabelsError
from illume_loop.evals.statistics import wilson_interval
from illume_loop.judge.agreement import confusions
from illume_loop.judge.calibration import Fit
from illume_loop.judge.reviews import cohens_kappa, fit_on_reviews
from illume_loop.loop.context import calibration_in

router = APIRouter(prefix="/runs/{run_id}")
LOOKED_AT = 1000
"""The number of a round's samples behind the table of mistakes."""
DRIFTS = 20
SVG_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""The content security policy of a plot: an SVG with its own style, which can load and run nothing."""


@router.get("/judge", response_class=HTMLResponse)
def judge(request: Request, run: RunDep, source: SourceDep, index: RoundChoice = None) -> Response:
    """Show the judge of a run."""
    with source.reading() as session:
        shown = round_shown(session, run.id, index)
        judged = [] if shown.id is None else judged_samples(session, shown.id, run.assessor, LOOKED_AT)
        fit, lacking = _fit(session, run)
        at_random = random_share(session, run.id)
        values: dict[str, Any] = {
            "calibration": calibration_in(session, run.id),
            "confusions": confusions(judged),
            "drifts": [row for row in last_rounds(session, run.id, DRIFTS) if row["judge_drift"]],
            "aucs": [row for row in last_rounds(session, run.id, DRIFTS) if row["judge_auc"] is not None],
            "reviewers": reviewers_of_run(session, run.id),
            "kappas": [(pair, cohens_kappa(pair.verdicts)) for pair in overlaps(session, run.id)],
        }
    return page(
        request,
        "judge.html",
        run=run,
        tab="judge",
        live=True,
        numbers=shown.numbers,
        shown=shown.index,
        fit=fit,
        lacking=lacking,
        fair=wilson_interval(at_random) if at_random else None,
        **values,
    )


@router.get("/judge/calibration.svg", response_class=Response)
def calibration_plot(run: RunDep, source: SourceDep) -> Response:
    """Return the reliability plot of the run's calibration."""
    with source.reading() as session:
        found = calibration_in(session, run.id)
    if found is None:
        raise NotFoundError(kind="calibration of run", name=run.id)
    return _svg(reliability_plot(found.overall.reliability, "calibration"))


@router.get("/judge/people.svg", response_class=Response)
def people_plot(run: RunDep, source: SourceDep) -> Response:
    """Return the reliability plot of the judge against people."""
    with source.reading() as session:
        fit, _ = _fit(session, run)
    if fit is None:
        raise NotFoundError(kind="calibration on reviews of run", name=run.id)
    return _svg(reliability_plot(fit.reliability, "against people"))


def _fit(session: Session, run: CurrentRun) -> tuple[Fit | None, str]:
    """Return the calibration on people's verdicts and "", or None and the reason."""
    try:
        return fit_on_reviews(reviews_of_run(session, run.id, run.assessor)), ""
    except TooFewLabelsError as error:
        return None, str(error)


def _svg(content: str) -> Response:
    headers = {"Content-Security-Policy": SVG_POLICY}
    return Response(content, media_type="image/svg+xml", headers=headers)
