"""The content of the page and its HTML. This module does no I/O, so tests need no run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from illume_loop.charts.curve import MEASURES, curve
from illume_loop.charts.numbers import decode, drift, gain, interval, number, percent
from illume_loop.domains import get_domain
from illume_loop.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Card:
    """An image with its prompt, score and verdict; `image` is a data URI, or empty if the file is missing."""

    image: str
    prompt: str
    score: float | None = None
    passed: bool | None = None
    failed: tuple[str, ...] = ()
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Pair:
    """The images that two models drew for one held-out prompt with the same seed."""

    before: Card
    after: Card


@dataclass(frozen=True, slots=True)
class Sheet:
    """The contact sheets of one round: (title, cards) in the order of the page."""

    round_index: int
    groups: Sequence[tuple[str, Sequence[Card]]]


@dataclass(frozen=True, slots=True)
class StudyTable:
    """The result of a study: its question, its table, and its plot as a data URI."""

    title: str
    question: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    plot: str


@dataclass(frozen=True, slots=True)
class Page:
    """The content of a run's page.

    `rounds` holds rows of `rounds ls --json`, `settings` the resolved settings, `summary` sentences, `commands` the
    commands that repeat the run, and `versions` the versions of the packages that wrote the page.
    """

    settings: Mapping[str, Mapping[str, Any]]
    rounds: Sequence[Mapping[str, Any]]
    sheets: Sequence[Sheet] = ()
    pairs: Sequence[Pair] = ()
    before: str = ""
    after: str = ""
    summary: Sequence[str] = ()
    commands: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    studies: Sequence[StudyTable] = ()
    closing: str = ""
    """The closing comparison of the run in one line; empty if there is none."""
    early_look: str = ""
    """The sentence that explains the intervals of early looks; empty if there was no early look."""


def render(page: Page) -> str:
    """Return the page as HTML. Every text is escaped."""
    run = {**page.settings["run"], "assessor": page.settings["assess"]["assessor"]}
    return (
        _environment()
        .get_template("page.html")
        .render(
            run=run,
            rounds=page.rounds,
            with_editing=any(row["editing"] for row in page.rounds),
            with_drift=any(row["judge_drift"] for row in page.rounds),
            curve=curve(page.rounds),
            more_curves=_more_curves(page),
            summary=page.summary,
            closing=page.closing,
            early_look=page.early_look,
            commands=page.commands,
            versions=page.versions,
            studies=page.studies,
            confidence=f"{100 * page.settings['gate']['confidence']:g} %",
            sheets=page.sheets,
            pairs=page.pairs,
            before=page.before,
            after=page.after,
            settings=json.dumps(page.settings, indent=2),
            decided_by=_decided_by(run["domain"]),
        )
    )


def _more_curves(page: Page) -> list[tuple[str, Markup]]:
    """Return (title, curve) for each measure other than `heldout` that has a curve."""
    num_probes = page.settings["gate"]["probe_items"]
    names = [name for name in MEASURES if name != "heldout"]
    drawn = [(MEASURES[name], curve(page.rounds, name, num_probes)) for name in names]
    return [(title, svg) for title, svg in drawn if svg]


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("illume_loop.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for rule in (interval, gain, percent, number, drift, decode):
        environment.filters[rule.__name__] = rule
    return environment


def _decided_by(domain: str) -> str:
    """Return the gate's decider as text; the domain may be missing here, and the run still gets its page."""
    try:
        return "the checker" if get_domain(domain).exact else "the run's base"
    except NotFoundError:
        return f"the domain {domain}, which is not installed here"
