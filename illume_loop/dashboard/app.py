"""Builds the dashboard's app: pages, guards and error pages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from illume_loop.dashboard.access import Access, Guesses
from illume_loop.dashboard.dependencies import CsrfError, LoginRequired, RoleRequired, visitor_of
from illume_loop.dashboard.headers import LOCAL_NAMES, Guard
from illume_loop.dashboard.proxies import LOOPBACK, Network
from illume_loop.dashboard.render import page, redirect
from illume_loop.dashboard.routes import (
    files,
    gallery,
    judge,
    live,
    login,
    models,
    reviews,
    rounds,
    runs,
    samples,
    starting,
    workers,
)
from illume_loop.dashboard.source import Source
from illume_loop.dashboard.starter import Starter
from illume_loop.errors import ConflictError, IllumeLoopError, NotFoundError, UnhealthyError, UsageError

STATIC = Path(__file__).parent / "static"
STATUS = ((NotFoundError, 404), (UsageError, 422), (ConflictError, 409), (UnhealthyError, 503))
PAGES = (runs, rounds, gallery, samples, judge, models, workers, reviews, starting, files, live)

log = logging.getLogger(__name__)


def create_app(source: Source, access: Access, trusted: Sequence[Network] = LOOPBACK) -> FastAPI:
    """Return the dashboard of a source; it trusts the headers of proxies in the `trusted` networks.

    Visitors who are logged in get its OpenAPI document at /openapi.json.
    """
    app = FastAPI(title="illume-loop dashboard", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.source, app.state.access, app.state.guesses = source, access, Guesses()
    app.state.starter = Starter(source.run_dir)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.include_router(login.router)
    for module in PAGES:
        app.include_router(module.router, dependencies=[Depends(visitor_of)])

    @app.get("/openapi.json", include_in_schema=False, dependencies=[Depends(visitor_of)])
    def openapi() -> dict[str, object]:
        return app.openapi()

    app.add_middleware(Guard, names=LOCAL_NAMES if access.is_open else None, trusted=trusted)
    _tell_errors(app)
    return app


def _tell_errors(app: FastAPI) -> None:
    @app.exception_handler(LoginRequired)
    def login_first(request: Request, _: Exception) -> Response:
        wanted = quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""))
        return redirect(request, f"/login?next={wanted}" if request.method == "GET" else "/login")

    @app.exception_handler(RoleRequired)
    def not_yours(request: Request, error: Exception) -> Response:
        return _error(request, 403, f"You cannot do this: {error}.")

    @app.exception_handler(CsrfError)
    def foreign(request: Request, _: Exception) -> Response:
        return _error(request, 403, "This form is out of date. Go back, reload the page, and send the form again.")

    @app.exception_handler(IllumeLoopError)
    def told(request: Request, error: Exception) -> Response:
        status = next((status for kind, status in STATUS if isinstance(error, kind)), 500)
        return _error(request, status, str(error))

    @app.exception_handler(DBAPIError)
    def no_database(request: Request, error: Exception) -> Response:
        log.error("the database did not answer: %s", error)
        return _error(request, 503, "The database did not answer. Try again in a moment.")

    @app.exception_handler(RequestValidationError)
    def unreadable(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(step) for step in first["loc"][1:])
        return _error(request, 422, f"Cannot read {place}: {first['msg']}." if place else f"{first['msg']}.")

    @app.exception_handler(HTTPException)
    def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        told = _error(request, error.status_code, f"{error.detail}.")
        told.headers.update(error.headers or {})
        return told


def _error(request: Request, status: int, message: str) -> Response:
    return page(request, "error.html", status=status, message=message, code=status)
