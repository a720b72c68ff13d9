"""The page with all runs of the database."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from illume_db.live import store_mark
from illume_db.runs import runs_table
from illume_loop.dashboard.dependencies import SourceDep
from illume_loop.dashboard.render import page

router = APIRouter()


@router.get("/", response_class=HTMLResponse)
def runs(request: Request, source: SourceDep) -> Response:
    """Show all runs, the latest first."""
    with source.reading() as session:
        rows, mark = runs_table(session), store_mark(session)
    return page(request, "runs.html", rows=rows, mark=mark, live=True)
