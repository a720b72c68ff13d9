"""Writes the run's page: `index.html` in the run directory, one file without references to others.

Invariants:
- The choice of samples does not depend on when the page is written: the highest and lowest scores (one per prompt), and
  a random choice seeded by the round's number.
- Held-out pairs are the first of their set; nobody selects them.
- A missing or damaged image leaves a gap and does not stop the page.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from illume_db.evaluations import kept_draws
from illume_db.rounds_table import rounds_table
from illume_db.runs import run_row
from illume_db.samples import samples_page
from illume_loop.artifacts.images import ImageStore
from illume_loop.errors import CorruptArtifactError
from illume_loop.files import write_atomically
from illume_loop.report.headline import EARLY_LOOK, has_early_look, last_closing
from illume_loop.report.render import Card, Page, Pair, Sheet, render
from illume_loop.report.summary import commands, summary

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NAME = "index.html"
SHEETS = 5
"""The number of rounds whose samples are shown, the latest first."""
CARDS = 9
"""The number of samples in one contact sheet, which is a row of the page."""
PAIRS = 16
BATCH = 1000


def write_page(session: Session, run_id: int, run_dir: Path, images: ImageStore) -> Path:
    """Write the page of a run; return its path. Raises StorageFullError."""
    path = run_dir / NAME
    write_atomically(path, render(page_of(session, run_id, images)).encode())
    return path


def page_of(session: Session, run_id: int, images: ImageStore) -> Page:
    """Return the content of a run's page."""
    rounds = rounds_table(session, run_id)
    before, after, pairs = _pairs(session, run_id, rounds, images)
    shown = [row["index"] for row in rounds if row["samples"]][-SHEETS:]
    settings = run_row(session, run_id)["settings"]
    return Page(
        settings=settings,
        rounds=rounds,
        summary=list(summary(rounds)),
        closing=last_closing(rounds) or "",
        early_look=EARLY_LOOK if has_early_look(rounds) else "",
        commands=commands(settings, len(rounds)),
        sheets=[_sheet(session, run_id, index, images) for index in reversed(shown)],
        pairs=pairs,
        before=before,
        after=after,
    )


def _pairs(
    session: Session, run_id: int, rounds: Sequence[Mapping[str, Any]], images: ImageStore
) -> tuple[str, str, list[Pair]]:
    """Return (first parent, last promoted candidate, their draws in pairs).

    Without a promotion, the last decided candidate takes its place; without a decided round, there are no pairs.
    """
    decided = [row for row in rounds if row["decision"] is not None]
    if not decided:
        return "", "", []
    first = decided[0]
    last = next((row for row in reversed(decided) if row["decision"] == "promoted"), decided[-1])
    after = {draw["prompt"]: draw["candidate"] for draw in kept_draws(session, run_id, last["index"])}
    pairs = [
        Pair(_drawn(draw["prompt"], draw["parent"], images), _drawn(draw["prompt"], after[draw["prompt"]], images))
        for draw in kept_draws(session, run_id, first["index"])
        if draw["prompt"] in after
    ]
    return first["parent"], last["candidate"], pairs[:PAIRS]


def _sheet(session: Session, run_id: int, round_index: int, images: ImageStore) -> Sheet:
    scored = [row for row in _samples(session, run_id, round_index) if row["score"] is not None]
    by_score = sorted(scored, key=lambda row: (row["score"], -row["id"]))
    highest, lowest = _one_for_each_prompt(by_score[::-1]), _one_for_each_prompt(by_score)
    chosen = Random(f"page/{round_index}").sample(scored, min(2 * CARDS, len(scored)))
    groups = (("Highest scores", highest), ("Lowest scores", lowest), ("At random", chosen))
    return Sheet(round_index, [(title, [_card(row, images) for row in rows]) for title, rows in groups])


def _one_for_each_prompt(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the first row of each prompt, at most CARDS; a prompt's samples score alike and would fill the sheet."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        first.setdefault(row["prompt"], row)
    return list(first.values())[:CARDS]


def _samples(session: Session, run_id: int, round_index: int) -> Iterator[Mapping[str, Any]]:
    after = 0
    while rows := samples_page(session, run_id, round_index=round_index, after=after, limit=BATCH):
        yield from rows
        after = rows[-1]["id"]


def _card(row: Mapping[str, Any], images: ImageStore) -> Card:
    return Card(
        image=_data_uri(row["image_sha256"], images),
        prompt=row["prompt"],
        score=row["score"],
        passed=row["passed"],
        failed=tuple(row["failed"]),
        kept=row["accepted"],
    )


def _drawn(prompt: str, draw: Mapping[str, Any], images: ImageStore) -> Card:
    return Card(image=_data_uri(draw["image_sha256"], images), prompt=prompt, passed=draw["passed"])


def _data_uri(sha256: str, images: ImageStore) -> str:
    try:
        return "data:image/png;base64," + base64.b64encode(images.read_bytes(sha256)).decode("ascii")
    except CorruptArtifactError:
        return ""
