"""The models page: versions as a tree, a comparison of two, and promotion and rollback with a confirmation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Request
from starlette.responses import HTMLResponse, Response

from illume_db.rounds_table import rounds_table
from illume_db.tables.versions import GUARDED
from illume_db.versions import compared, comparisons, models_table
from illume_loop.dashboard.dependencies import Admin, RunDep, SourceDep, Version, check_csrf
from illume_loop.dashboard.render import page, redirect
from illume_loop.errors import NoActiveVersionError, NotFoundError, PromotionError, UnderTrialError
from illume_loop.loop import promotion
from illume_loop.report import headline

router = APIRouter(prefix="/runs/{run_id}/models")
Choice = Annotated[str, Query(max_length=16, description="Name of a model version.")]


@router.get("", response_class=HTMLResponse)
def models(request: Request, run: RunDep, source: SourceDep, a: Choice = "", b: Choice = "") -> Response:
    """Show the tree of versions, and the comparison of two."""
    with source.reading() as session:
        rows = models_table(session, run.id)
        asked = bool(a and b)
        for name in (a, b) if asked else ():
            _found(next((row for row in rows if row["name"] == name), None), name)
        found = compared(session, run.id, a, b) if asked else []
        of_each = comparisons(session, run.id) if asked else {}
        rounds = rounds_table(session, run.id) if asked else []
    decided = next((row for row in rounds if (row["parent"], row["candidate"]) in ((a, b), (b, a))), None)
    return page(
        request,
        "models.html",
        run=run,
        tab="models",
        live=True,
        tree=tree(rows),
        rows=rows,
        a=a,
        b=b,
        asked=asked,
        compared=[row for row in found if row["suite"] in GUARDED],
        main=headline.compared(of_each.get(a, []), of_each.get(b, []), b) if asked else None,
        decided=decided,
    )


@router.get("/{name}/promote", response_class=HTMLResponse)
def ask_to_promote(request: Request, run: RunDep, source: SourceDep, name: Version, _: Admin) -> Response:
    """Ask for confirmation before a promotion, and say what it does."""
    with source.reading() as session:
        rows = models_table(session, run.id)
    version = _found(next((row for row in rows if row["name"] == name), None), name)
    active = next((row for row in rows if row["state"] == "active"), None)
    if version is active:
        raise PromotionError(name=name, reason="it is active already")
    if version["under_trial"]:
        raise UnderTrialError(name=name, index=version["round"])
    action = f"runs/{run.id}/models/{name}/promote"
    return page(request, "confirm.html", run=run, tab="models", active=active, target=version, action=action)


@router.post("/{name}/promote", dependencies=[Depends(check_csrf)])
def promote(request: Request, run: RunDep, source: SourceDep, name: Version, admin: Admin) -> Response:
    """Make a version active."""
    with source.writing() as session:
        promotion.promote(session, run.id, name, by=admin.name)
    return redirect(request, f"/runs/{run.id}/models")


@router.get("/rollback", response_class=HTMLResponse)
def ask_to_roll_back(request: Request, run: RunDep, source: SourceDep, _: Admin) -> Response:
    """Ask for confirmation before a rollback, and say what it does."""
    with source.reading() as session:
        rows = models_table(session, run.id)
    active = _active(rows)
    target = next((row for row in rows if row["name"] == active["parent"]), None)
    if target is None:
        raise PromotionError(name="an older version", reason=f"{active['name']} is the base of the run")
    action = f"runs/{run.id}/models/rollback"
    return page(request, "confirm.html", run=run, tab="models", active=active, target=target, action=action)


@router.post("/rollback", dependencies=[Depends(check_csrf)])
def roll_back(
    request: Request, run: RunDep, source: SourceDep, admin: Admin, active: Annotated[str, Form(max_length=16)] = ""
) -> Response:
    """Make the parent of the active version active again; refuse if `active` is no longer the active version."""
    with source.writing() as session:
        promotion.rollback(session, run.id, by=admin.name, expected=active)
    return redirect(request, f"/runs/{run.id}/models")


def tree(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the versions in tree order, each with its depth: children follow their parent, the oldest first."""
    children: dict[str | None, list[Mapping[str, Any]]] = {}
    for row in rows:
        children.setdefault(row["parent"], []).append(row)
    found: list[dict[str, Any]] = []
    waiting = [(row, 0) for row in reversed(children.get(None, []))]
    while waiting:
        row, depth = waiting.pop()
        found.append({**row, "depth": depth})
        waiting += [(child, depth + 1) for child in reversed(children.get(row["name"], []))]
    return found


def _active(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    active = next((row for row in rows if row["state"] == "active"), None)
    if active is None:
        raise NoActiveVersionError
    return active


def _found(row: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    if row is None:
        raise NotFoundError(kind="model version", name=name)
    return row
