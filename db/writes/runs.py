"""Adding a run, its prompts, and lines to its diary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from db.models import Event, Prompt, Run

CHUNK = 500
"""Values in one IN list: far below the limits of both databases."""


@dataclass(frozen=True, slots=True)
class NewPrompt:
    """A prompt as a domain states it; an edit has the last three besides."""

    split: str
    key: str
    category: str
    text: str
    spec: dict[str, Any]
    instruction: str | None = None
    target: str | None = None
    source_sha256: str | None = None


def find_run(session: Session, key: str) -> Run | None:
    """The run that a run directory names by `key`."""
    return session.scalar(select(Run).where(Run.key == key))


def add_run(session: Session, *, key: str, name: str, seed: int, settings: dict[str, Any], at: datetime) -> Run:
    """Add a run."""
    run = Run(key=key, name=name, seed=seed, settings=settings, created_at=at)
    session.add(run)
    session.flush()
    return run


def hold_run(session: Session, run_id: int) -> None:
    """Keep the run's row locked until the commit, so that what is decided about the run is decided one at a time.

    The coordinator and people decide from what they have read, and none of them may overlook the other. On SQLite
    every transaction that writes is alone already.
    """
    session.execute(select(Run.id).where(Run.id == run_id).with_for_update(key_share=True))


def add_event(
    session: Session, run_id: int, kind: str, message: str, *, at: datetime, round_id: int | None = None
) -> None:
    """Add a line to the run's diary."""
    session.add(Event(run_id=run_id, round_id=round_id, at=at, kind=kind, message=message))
    session.flush()


def ensure_prompts(session: Session, run_id: int, prompts: Sequence[NewPrompt]) -> list[int]:
    """The ids of `prompts` in order, adding those that are new. A text belongs to one split: another one raises.

    Units that measure different versions add the same held-out prompts, maybe at once: the second one waits for the
    first, and takes its rows.
    """
    known = _ids_by_text(session, run_id, [prompt.text for prompt in prompts])
    new = {prompt.text: prompt for prompt in prompts if (prompt.text, prompt.split) not in known}
    if new:
        rows = [{"run_id": run_id, **asdict(prompt)} for prompt in new.values()]
        insert_new = _insert(session).on_conflict_do_nothing(index_elements=["run_id", "text"])
        session.execute(insert_new, rows)
        known |= _ids_by_text(session, run_id, list(new))
        others = [row for row in rows if (row["text"], row["split"]) not in known]
        if others:
            session.execute(insert(Prompt), others)
    return [known[prompt.text, prompt.split] for prompt in prompts]


def _insert(session: Session) -> sqlite.Insert | postgresql.Insert:
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(Prompt)
    return sqlite.insert(Prompt)


def _ids_by_text(session: Session, run_id: int, texts: Sequence[str]) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for chunk in _chunks(texts):
        query = select(Prompt.text, Prompt.split, Prompt.id).where(Prompt.run_id == run_id, Prompt.text.in_(chunk))
        found |= {(text, split): id_ for text, split, id_ in session.execute(query)}
    return found


def _chunks(texts: Sequence[str]) -> Iterable[Sequence[str]]:
    return (texts[start : start + CHUNK] for start in range(0, len(texts), CHUNK))
