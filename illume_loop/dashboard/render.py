"""Renders pages from templates. Every text is escaped, except the figures that this package draws."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse

from illume_loop.charts.bars import log_odds_bar, spans
from illume_loop.charts.numbers import MISSING, decode, gain, interval, number, percent
from illume_loop.dashboard.access import Role
from illume_loop.dashboard.proxies import root_of
from illume_loop.report import headline

if TYPE_CHECKING:
    from illume_loop.dashboard.dependencies import CurrentRun


@cache
def environment() -> Environment:
    """Return the template environment with its filters."""
    made = Environment(
        loader=PackageLoader("illume_loop.dashboard", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    of_numbers = interval, gain, percent, number, decode
    of_versions = headline.share_of, headline.judged_by, headline.at_setting, headline.best_decode
    for rule in (*of_numbers, *of_versions, moment, seconds, count, log_odds_bar):
        made.filters[rule.__name__] = rule
    made.tests["differing_at_setting"] = headline.differs_at_setting
    made.globals.update(spans=spans, Role=Role, early_look=headline.EARLY_LOOK, has_early_look=headline.has_early_look)
    return made


def page(
    request: Request,
    template: str,
    *,
    status: int = 200,
    run: CurrentRun | None = None,
    live: bool = False,
    mark: str = "",
    **values: Any,
) -> HTMLResponse:
    """Render a template as a page.

    With `live`, the page updates itself: on changes of `run`, or without a run on changes of the whole database, whose
    mark at rendering time is `mark`.
    """
    root, here = root_of(request), request.url.path + (f"?{request.url.query}" if request.url.query else "")
    shared = {
        "visitor": getattr(request.state, "visitor", None),
        "run": run,
        "tab": "",
        "mark": run.mark if run else mark,
        "root": root,
        "live": "" if not live else f"{root}runs/{run.id}/live" if run else f"{root}live",
    }
    is_open = request.app.state.access.is_open
    content = environment().get_template(template).render({**shared, "here": here, "is_open": is_open, **values})
    return HTMLResponse(content, status_code=status)


def redirect(request: Request, path: str) -> RedirectResponse:
    """Redirect a browser after a form; `path` is absolute in the dashboard and is sent relative to the request."""
    return RedirectResponse(root_of(request) + path.removeprefix("/"), status_code=303)


def moment(iso: str | None) -> str:
    """Format a time as "2026-01-31 17:05" (UTC)."""
    return MISSING if not iso else datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M")


def seconds(value: float | None) -> str:
    """Format a duration in seconds, minutes, hours or days."""
    if value is None:
        return MISSING
    for limit, size, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if value < limit:
            return f"{value / size:.0f} {unit}"
    return f"{value / 86_400:.0f} d"


def count(value: int | None) -> str:
    """Format a count with commas between thousands."""
    return MISSING if value is None else f"{value:,}"
