"""The page of workers and their queues."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from illume_db.live import store_mark
from illume_db.workers import queue_table, workers_table
from illume_loop.dashboard.dependencies import SourceDep
from illume_loop.dashboard.render import page

router = APIRouter()


@router.get("/workers", response_class=HTMLResponse)
def workers(request: Request, source: SourceDep) -> Response:
    """Show the workers of all runs, and their queues."""
    with source.reading() as session:
        rows, queues, mark = workers_table(session), queue_table(session), store_mark(session)
    return page(request, "workers.html", tab="workers", live=True, rows=rows, queues=queues, mark=mark)
