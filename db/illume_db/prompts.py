"""Prompts of a run and of its rounds: add them and read them."""

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
    """A prompt as it is stored; `instruction`, `target` and `source_sha256` are set for an edit only."""

    split: str
    key: str
    category: str
    text: str
    spec: dict[str, Any]
    instruction: str | None = None
    target: str | None = None
    source_sha256: str | None = None
    id: int = 0
    """The prompt's id; 0 before it is stored."""
    position: int = -1
    """The prompt's position in a round; -1 outside of one."""

    @property
    def claim(self) -> str:
        """The text that an image has to show: the prompt, or the target of an edit."""
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
"""The columns of a `PromptRow`, in the order of its fields; a query may add the position after them."""
CHUNK = 500
"""The most values in one IN list, far below the limits of both databases."""


def ensure_prompts(session: Session, run_id: int, prompts: Sequence[PromptRow]) -> list[int]:
    """Add the prompts that are new, and return the ids of all `prompts` in order.

    Units that measure different versions may add the same held-out prompts at the same time. The second one then waits
    for the first and uses its rows. Raises IntegrityError if a text is stored in another split already.
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
    """Return all stored prompts of a run, in the order in which they were added."""
    query = select(*COLUMNS).where(Prompt.run_id == run_id).order_by(Prompt.id)
    return [PromptRow(*row) for row in session.execute(query)]


def prompts_at(session: Session, round_id: int, first: int, stop: int) -> list[PromptRow]:
    """Return the prompts of a round at positions first <= position < stop, in order."""
    query = (
        select(*COLUMNS, RoundPrompt.position)
        .join(RoundPrompt, RoundPrompt.prompt_id == Prompt.id)
        .where(RoundPrompt.round_id == round_id, RoundPrompt.position >= first, RoundPrompt.position < stop)
        .order_by(RoundPrompt.position)
    )
    return [PromptRow(*row) for row in session.execute(query)]


def prompt_ids_of(session: Session, round_id: int) -> list[int]:
    """Return the ids of a round's prompts, in order."""
    query = select(RoundPrompt.prompt_id).where(RoundPrompt.round_id == round_id).order_by(RoundPrompt.position)
    return list(session.scalars(query))
