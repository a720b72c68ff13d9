"""The prompts of a run, for its domain and for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Prompt


@dataclass(frozen=True, slots=True)
class StoredPrompt:
    """A prompt with its split."""

    split: str
    text: str
    category: str
    key: str
    spec: dict[str, Any]


def prompts_of_run(session: Session, run_id: int) -> list[StoredPrompt]:
    """All prompts that the database knows of a run, in the order in which they were added."""
    query = select(Prompt.split, Prompt.text, Prompt.category, Prompt.key, Prompt.spec)
    return [StoredPrompt(*row) for row in session.execute(query.where(Prompt.run_id == run_id).order_by(Prompt.id))]
