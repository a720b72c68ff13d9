"""Prompts of a run and of its rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from illume_db.tables import Prompt, RoundPrompt


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt as the database keeps it; the three fields after `spec` are those of an edit."""

    split: str
    key: str
    category: str
    text: str
    spec: dict[str, Any]
    instruction: str | None = None
    target: str | None = None
    source_sha256: str | None = None
    id: int = 0
    """0 before it is stored."""
    position: int = -1
    """In its round; -1 where no round is meant."""

    @property
    def claim(self) -> str:
        """What an image has to show: the prompt, or the target of an edit."""
        return self.target or self.text


COLUMNS = (
    Prompt.split,
    Prompt.key,
    Prompt.category,
    Prompt.text,
    Prompt.spec,
    Prompt.instruction,
    Prompt.target,
    Prompt.source_sha256,
    Prompt.id,
)
"""What a query selects for a `PromptRow`, in this order; its position may follow."""
CHUNK = 500
"""Values in one IN list: far below the limits of both databases."""


def ensure_prompts(session: Session, run_id: int, prompts: Sequence[PromptRow]) -> list[int]:
    """The ids of `prompts` in order, adding those that are new. A text belongs to one split: another one raises.

    Units that measure different versions add the same held-out prompts, maybe at once: the second one waits for the
    first, and takes its rows.
    """
    known = _ids_by_text(session, run_id, [prompt.text for prompt in prompts])
    new = {prompt.text: prompt for prompt in prompts if (prompt.text, prompt.split) not in known}
    if new:
        rows = [{"run_id": run_id, **_values(prompt)} for prompt in new.values()]
        insert_new = _insert(session).on_conflict_do_nothing(index_elements=["run_id", "text"])
        session.execute(insert_new, rows)
        known |= _ids_by_text(session, run_id, list(new))
        others = [row for row in rows if (row["text"], row["split"]) not in known]
        if others:
            session.execute(insert(Prompt), others)
    return [known[prompt.text, prompt.split] for prompt in prompts]


def _values(prompt: PromptRow) -> dict[str, Any]:
    values = asdict(prompt)
    del values["id"], values["position"]
    return values


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


def prompts_of_run(session: Session, run_id: int) -> list[PromptRow]:
    """All prompts that the database knows of a run, in the order in which they were added."""
    query = select(*COLUMNS).where(Prompt.run_id == run_id).order_by(Prompt.id)
    return [PromptRow(*row) for row in session.execute(query)]


def prompts_at(session: Session, round_id: int, first: int, stop: int) -> list[PromptRow]:
    """The prompts of a round at positions first <= position < stop, in order."""
    query = (
        select(*COLUMNS, RoundPrompt.position)
        .join(RoundPrompt, RoundPrompt.prompt_id == Prompt.id)
        .where(RoundPrompt.round_id == round_id, RoundPrompt.position >= first, RoundPrompt.position < stop)
        .order_by(RoundPrompt.position)
    )
    return [PromptRow(*row) for row in session.execute(query)]


def prompt_ids_of(session: Session, round_id: int) -> list[int]:
    """The ids of a round's prompts, in order."""
    query = select(RoundPrompt.prompt_id).where(RoundPrompt.round_id == round_id).order_by(RoundPrompt.position)
    return list(session.scalars(query))
