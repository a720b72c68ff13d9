"""Server-sent events for live pages: a new mark tells a page to reload its live part.

Each open page costs one query per second, whatever the loop does. A page that lost its connection catches up, because
it holds the mark of its rendering.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse

from illume_db.live import store_mark
from illume_loop.dashboard.access import COOKIE
from illume_loop.dashboard.dependencies import RunDep, SourceDep, StarterDep, access_of, mark_of
from illume_loop.dashboard.source import Source

router = APIRouter()
POLL_S = 1.0
SILENT_S = 15.0
"""The seconds of silence after which a comment is sent, so that a lost connection is noticed."""
MOST_STREAMS = 100
RETRY = "retry: 2000\n\n"

Once = Annotated[bool, Query(description="End after the first mark, for scripts.")]


class _Open:
    """The number of open streams."""

    def __init__(self) -> None:
        self.count = 0


_OPEN = _Open()


@router.get("/live", response_class=StreamingResponse)
async def everything(request: Request, source: SourceDep, once: Once = False) -> StreamingResponse:
    """Stream the marks of the whole database."""
    return _stream(request, source, store_mark, once)


@router.get("/runs/{run_id}/live", response_class=StreamingResponse)
async def of_run(
    request: Request, run: RunDep, source: SourceDep, starter: StarterDep, once: Once = False
) -> StreamingResponse:
    """Stream the marks of one run."""
    return _stream(request, source, lambda session: mark_of(session, starter, run.id), once)


def _stream(request: Request, source: Source, mark: Callable[[Session], str], once: bool) -> StreamingResponse:
    if _OPEN.count >= MOST_STREAMS:
        raise HTTPException(503, "Too many pages are open", headers={"Retry-After": "30"})
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_marks(request, source, mark, once), media_type="text/event-stream", headers=headers)


async def _marks(request: Request, source: Source, mark: Callable[[Session], str], once: bool) -> AsyncIterator[str]:
    def now() -> str:
        with source.reading() as session:
            return mark(session)

    _OPEN.count += 1
    last, sent = "", time.monotonic()
    try:
        yield RETRY
        while access_of(request).visitor(request.cookies.get(COOKIE)) is not None:
            try:
                found = await run_in_threadpool(now)
            except SQLAlchemyError:
                # The page keeps its content and reconnects by itself.
                return
            if found != last:
                last, sent = found, time.monotonic()
                yield f"event: mark\ndata: {found}\n\n"
            elif time.monotonic() - sent > SILENT_S:
                sent = time.monotonic()
                yield ": still here\n\n"
            if once:
                return
            await asyncio.sleep(POLL_S)
    finally:
        _OPEN.count -= 1
