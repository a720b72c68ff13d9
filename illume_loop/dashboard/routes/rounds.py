"""The page of a run with its rounds, and the page of one round with its progress and the gate's decision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from markupsafe import Markup
from starlette.responses import HTMLResponse, Response

from illume_db.evaluations import kept_draws
from illume_db.gallery import Filters, extremes
from illume_db.reviews import num_reviewed
from illume_db.rounds_table import last_rounds, open_stages, round_detail
from illume_db.runs import last_events, leader_of
from illume_loop.charts.curve import curve
from illume_loop.charts.trend import update_trends
from illume_loop.dashboard.dependencies import (
    INT4,
    CurrentRun,
    RoundIndex,
    RunDep,
    SourceDep,
    StarterDep,
    existing_round_id,
)
from illume_loop.dashboard.render import page
from illume_loop.errors import NotFoundError
from illume_loop.loop.run_directory import holder
from illume_loop.report.headline import last_closing

router = APIRouter(prefix="/runs/{run_id}")
SHOWN = 40
"""The number of rounds in one page of the table and in the curves."""
CURVES = {"judge_auc": "Judge's AUC against the checker", "diversity": "Diversity", "understanding": "Understanding"}


@router.get("", response_class=HTMLResponse)
def rounds(
    request: Request,
    run: RunDep,
    source: SourceDep,
    starter: StarterDep,
    before: Annotated[int | None, Query(ge=1, le=INT4)] = None,
) -> Response:
    """Show a run: its progress, curves, last rounds and last events."""
    with source.reading() as session:
        rows = last_rounds(session, run.id, SHOWN, before)
        values: dict[str, Any] = {
            "stages": open_stages(session, run.id),
            "events": last_events(session, run.id),
            "leader": leader_of(session, run.id),
        }
    own = starter.can_start(run.key)
    values |= {
        "own": own,
        "started": starter.last_loop() if own else None,
        "holder": holder(source.run_dir) if own else None,
    }
    older = rows[-1]["index"] if len(rows) == SHOWN and rows[-1]["index"] > 1 else None
    return page(
        request,
        "rounds.html",
        run=run,
        tab="rounds",
        live=True,
        rows=rows,
        older=older,
        closing=last_closing(rows[::-1]),
        heldout=curve(rows[::-1]),
        curves=[(title, drawn) for title, drawn in _curves(run, rows[::-1]) if drawn],
        **values,
    )


def _curves(run: CurrentRun, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Markup]]:
    num_probes = run.settings["gate"]["probe_items"]
    for measure, title in CURVES.items():
        yield title, curve(rows, measure, num_probes)


@router.get("/rounds/{index}", response_class=HTMLResponse)
def one_round(request: Request, run: RunDep, source: SourceDep, index: RoundIndex) -> Response:
    """Show a round: its stages, decision, curation and images."""
    round_id = existing_round_id(source, run, index)
    with source.reading() as session:
        detail = round_detail(session, run.id, index)
        if detail is None:
            raise NotFoundError(kind="round", name=index)
        best, worst = extremes(session, run.id, round_id, Filters(), limit=6)
        values: dict[str, Any] = {
            "pairs": kept_draws(session, run.id, index)[:12],
            "num_reviewed": num_reviewed(session, round_id),
        }
    return page(
        request,
        "round.html",
        run=run,
        tab="rounds",
        live=True,
        round=detail,
        trends=update_trends(detail["updates"]),
        best=best,
        worst=worst,
        **values,
    )
