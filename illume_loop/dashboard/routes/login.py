"""The login page and logging out. If no password is set, a visitor gives only a name, which goes with their reviews."""

from __future__ import annotations

import math
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import HTMLResponse, Response

from illume_loop.dashboard.access import COOKIE, SESSION_S, Access, Guesses, Role
from illume_loop.dashboard.dependencies import NO_NUL, access_of, check_csrf
from illume_loop.dashboard.render import page, redirect
from illume_loop.judge.reviews import MOST_NAME, reviewer_name

router = APIRouter()
Next = Annotated[str, Query(max_length=1000, description="Page to go to then.")]


@router.get("/login", response_class=HTMLResponse)
def ask(request: Request, next: Next = "/") -> Response:
    """Ask for a name and a password."""
    return page(request, "login.html", next=_inside(next), message="")


@router.post("/login", response_class=HTMLResponse)
def log_in(
    request: Request,
    access: Annotated[Access, Depends(access_of)],
    name: Annotated[str, Form(max_length=MOST_NAME, pattern=NO_NUL)] = "",
    password: Annotated[str, Form(max_length=1000)] = "",
    next: Annotated[str, Form(max_length=1000)] = "/",
) -> Response:
    """Begin a session, or show an error; after several wrong passwords the visitor must wait."""
    guesses: Guesses = request.app.state.guesses
    address = request.client.host if request.client else ""
    wait_s = math.ceil(guesses.wait_s(address))
    if wait_s:
        message = f"Too many wrong passwords. Try again in {wait_s} s."
        told = page(request, "login.html", status=429, next=_inside(next), message=message)
        told.headers["Retry-After"] = str(wait_s)
        return told
    role = Role.ADMIN if access.is_open else access.role_of(password)
    if role is None:
        guesses.wrong(address)
        return page(request, "login.html", status=401, next=_inside(next), message="Wrong password.")
    token, _ = access.begin(reviewer_name(name), role)
    answer = redirect(request, _inside(next))
    _set_cookie(request, answer, token, int(SESSION_S))
    return answer


@router.post("/logout", dependencies=[Depends(check_csrf)])
def log_out(request: Request, access: Annotated[Access, Depends(access_of)]) -> Response:
    """End the session."""
    access.end(request.cookies.get(COOKIE))
    answer = redirect(request, "/")
    _set_cookie(request, answer, "", 0)
    return answer


def _set_cookie(request: Request, answer: Response, token: str, seconds: int) -> None:
    # Without a path, a browser returns the cookie only below the login page's own folder: within the path of a proxy,
    # and to nothing else on that host.
    secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, token, max_age=seconds, path=None, httponly=True, samesite="strict", secure=secure)


def _inside(path: str) -> str:
    """Return `path` if it stays on this server, or else the first page."""
    plain = path.startswith("/") and not path.startswith("//") and "\\" not in path and path.isprintable()
    plain = plain and ".." not in path.partition("?")[0].split("/")
    return path if plain else "/"
