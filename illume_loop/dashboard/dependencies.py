"""Dependencies that the pages share: the visitor and their role, the run and round of the path, and the form token."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Form, Path, Query, Request
from sqlalchemy.orm import Session

from illume_db.curation import scored_by
from illume_db.gallery import round_id_of, round_numbers
from illume_db.live import run_mark
from illume_db.runs import find_run_row
from illume_loop.dashboard.access import COOKIE, Access, Role, Visitor
from illume_loop.dashboard.source import Source
from illume_loop.dashboard.starter import Starter
from illume_loop.errors import NotFoundError

INT4, INT8 = 2**31 - 1, 2**63 - 1
"""The largest integers of the database's columns; the driver raises an error for larger ones."""

RunId = Annotated[int, Path(ge=1, le=INT8, description="Number of the run, as in the list of runs.")]
RoundIndex = Annotated[int, Path(ge=1, le=INT4, description="Number of the round in its run.")]
SampleId = Annotated[int, Path(ge=1, le=INT8, description="Id of the sample.")]
RoundChoice = Annotated[int | None, Query(alias="round", ge=1, le=INT4, description="Round; the latest by default.")]
Version = Annotated[str, Path(pattern=r"^v[0-9]{4,9}$", description="Name of a model version.")]
Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="sha256 of an image.")]
NO_NUL = r"^[^\x00]*$"
"""The pattern of a text without NUL, which Postgres cannot store."""


class LoginRequired(Exception):  # noqa: N818
    """The page needs a login, and the request has no session."""


class RoleRequired(Exception):  # noqa: N818
    """The visitor's role is too low for this action."""

    def __init__(self, role: Role) -> None:
        self.role = role
        super().__init__(f"it needs the role {role.name.lower()}")


class CsrfError(Exception):
    """The form lacks the token that the dashboard's pages put into every form."""


@dataclass(frozen=True, slots=True)
class CurrentRun:
    """The run that a page shows."""

    id: int
    key: str
    name: str
    seed: int
    settings: dict[str, Any]
    created_at: str
    mark: str

    @property
    def assessor(self) -> str:
        """The assessor whose scores decide."""
        return scored_by(self.settings["assess"]["assessor"])


def source_of(request: Request) -> Source:
    """Return the server's source."""
    source: Source = request.app.state.source
    return source


def access_of(request: Request) -> Access:
    """Return the server's passwords and sessions."""
    access: Access = request.app.state.access
    return access


def starter_of(request: Request) -> Starter:
    """Return the server's starter, which runs the loop in its run directory."""
    starter: Starter = request.app.state.starter
    return starter


def visitor_of(request: Request) -> Visitor:
    """Return the visitor of a request. Raises LoginRequired."""
    visitor = access_of(request).visitor(request.cookies.get(COOKIE))
    if visitor is None:
        raise LoginRequired
    request.state.visitor = visitor
    return visitor


def needs(role: Role) -> Callable[[Visitor], Visitor]:
    """Return a dependency that gives the visitor and raises RoleRequired if their role is too low."""

    def check(visitor: Annotated[Visitor, Depends(visitor_of)]) -> Visitor:
        if not visitor.may(role):
            raise RoleRequired(role)
        return visitor

    return check


def check_csrf(
    visitor: Annotated[Visitor, Depends(visitor_of)], csrf: Annotated[str, Form(max_length=200)] = ""
) -> None:
    """Raise CsrfError if the form is not from one of the dashboard's pages."""
    if not hmac.compare_digest(visitor.csrf.encode(), csrf.encode(errors="replace")):
        raise CsrfError


def mark_of(session: Session, starter: Starter, run_id: int) -> str:
    """Return a run's mark, a text that changes whenever its pages have something new to show."""
    return f"{run_mark(session, run_id)}-{starter.mark()}"


def current_run(
    run_id: RunId,
    source: Annotated[Source, Depends(source_of)],
    starter: Annotated[Starter, Depends(starter_of)],
) -> CurrentRun:
    """Return the run of the path. Raises NotFoundError."""
    with source.reading() as session:
        row = find_run_row(session, run_id)
        if row is None:
            raise NotFoundError(kind="run", name=run_id)
        kept = {key: row[key] for key in ("key", "name", "seed", "settings", "created_at")}
        return CurrentRun(id=run_id, mark=mark_of(session, starter, run_id), **kept)


def existing_round_id(source: Source, run: CurrentRun, index: int) -> int:
    """Return the id of a round of the run. Raises NotFoundError."""
    with source.reading() as session:
        found = round_id_of(session, run.id, index)
    if found is None:
        raise NotFoundError(kind="round", name=index)
    return found


@dataclass(frozen=True, slots=True)
class RoundShown:
    """The numbers of a run's rounds with samples, latest first, and the round that a page shows."""

    numbers: list[int]
    index: int | None
    """None if the run has no round with samples yet."""
    id: int | None


def round_shown(session: Session, run_id: int, wanted: int | None) -> RoundShown:
    """Return the requested round, or the latest one with samples. Raises NotFoundError."""
    numbers = round_numbers(session, run_id)
    index = wanted or (numbers[0] if numbers else None)
    round_id = None if index is None else round_id_of(session, run_id, index)
    if wanted is not None and round_id is None:
        raise NotFoundError(kind="round", name=wanted)
    return RoundShown(numbers, index, round_id)


RunDep = Annotated[CurrentRun, Depends(current_run)]
SourceDep = Annotated[Source, Depends(source_of)]
StarterDep = Annotated[Starter, Depends(starter_of)]
Reader = Annotated[Visitor, Depends(visitor_of)]
Reviewer = Annotated[Visitor, Depends(needs(Role.REVIEWER))]
Admin = Annotated[Visitor, Depends(needs(Role.ADMIN))]
