"""The page with all runs of the database."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from illume_db.live import store_mark
from illume_db.runs import runs_table
from illume_loop.dashboard.asking import Store
from illume_loop.dashboard.render import page

router = APIRouter()


@router.get("/", response_class=HTMLResponse)
def runs(request: Request, source: Store) -> Response:
    """Show all runs, the latest first."""
    with source.reading() as session:
        rows, mark = runs_table(session), store_mark(session)
    return page(request, "runs.html", rows=rows, mark=mark, live=True)
