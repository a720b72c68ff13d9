"""The pages that continue a run, after a confirmation, and stop a loop that a page started."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, Response

from illume_db.rounds_table import last_rounds
from illume_db.runs import add_event, leader_of
from illume_db.tables.rounds import TERMINAL_STATES
from illume_loop.dashboard.dependencies import Admin, CurrentRun, RunDep, SourceDep, StarterDep, check_csrf
from illume_loop.dashboard.render import page, redirect
from illume_loop.errors import NotStartableError, UsageError

router = APIRouter(prefix="/runs/{run_id}")
MOST_ROUNDS = 1000
"""The upper bound of `run.rounds`."""


@router.get("/start", response_class=HTMLResponse)
def ask_to_start(request: Request, run: RunDep, source: SourceDep, starter: StarterDep, _: Admin) -> Response:
    """Ask up to which round to continue, and say what continuing does."""
    if not starter.can_start(run.key):
        raise NotStartableError(path=starter.run_dir)
    with source.reading() as session:
        least = _least_rounds(session, run)
    wanted = min(MOST_ROUNDS, max(least, run.settings["run"]["rounds"]))
    return page(
        request, "start.html", run=run, tab="rounds", least=least, most=MOST_ROUNDS, wanted=wanted, starter=starter
    )


@router.post("/start", dependencies=[Depends(check_csrf)])
def start(
    request: Request,
    run: RunDep,
    source: SourceDep,
    starter: StarterDep,
    admin: Admin,
    rounds: Annotated[int, Form(ge=1, le=MOST_ROUNDS)],
) -> Response:
    """Continue the run until it has `rounds` rounds."""
    with source.reading() as session:
        least, leader = _least_rounds(session, run), leader_of(session, run.id)
    if rounds < least:
        raise UsageError(f"the run needs no work for {least - 1} rounds; name {least} rounds or more")
    starter.start(run.key, rounds, by=admin.name, leader=leader)
    _note(source, run, f"{admin.name} continued the run from the dashboard, up to round {rounds}")
    return redirect(request, f"/runs/{run.id}")


@router.post("/stop", dependencies=[Depends(check_csrf)])
def stop(request: Request, run: RunDep, source: SourceDep, starter: StarterDep, admin: Admin) -> Response:
    """Stop the loop that this server started; do nothing if it has ended."""
    if starter.can_start(run.key) and starter.stop():
        _note(source, run, f"{admin.name} stopped the loop from the dashboard")
    return redirect(request, f"/runs/{run.id}")


def _least_rounds(session: Session, run: CurrentRun) -> int:
    """Return the smallest number of rounds in all for which the run has work to do."""
    last = next(iter(last_rounds(session, run.id, 1)), None)
    if last is None:
        return 1
    return int(last["index"]) + (1 if last["state"] in TERMINAL_STATES else 0)


def _note(source: SourceDep, run: CurrentRun, message: str) -> None:
    with source.writing() as session:
        add_event(session, run.id, "by hand", message, at=datetime.now(UTC))
