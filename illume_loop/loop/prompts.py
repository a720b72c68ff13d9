"""Prompts as the domain states them and as the database keeps them.

Guarantee: the source image of an edit is in the artifact store before its prompt is in the database.
"""

from __future__ import annotations

from collections.abc import Sequence

from illume_db import tables
from illume_db.curation import UnsolvedPrompt
from illume_db.prompts import NewPrompt, PromptRow
from illume_db.reviews import ReviewRow
from illume_loop.artifacts.images import ImageStore
from illume_loop.domains.protocol import Domain, Prompt, Split

PromptColumns = tables.Prompt | PromptRow | UnsolvedPrompt | ReviewRow
"""Whatever has the columns of a prompt."""


def prompt_of(row: PromptColumns) -> Prompt:
    """A stored prompt as its domain stated it."""
    return Prompt(row.text, row.category, row.key, row.spec, row.instruction or "", row.target or "")


def new_prompts(split: Split, prompts: Sequence[Prompt], domain: Domain, images: ImageStore) -> list[NewPrompt]:
    """A domain's prompts as the database takes them; the sources of edits are written to `images`."""
    edits = [prompt for prompt in prompts if prompt.is_edit]
    names = images.write_all([domain.source(prompt) for prompt in edits])
    sources = {prompt.text: name for prompt, name in zip(edits, names, strict=True)}
    return [
        NewPrompt(
            split, p.key, p.category, p.text, dict(p.spec), p.instruction or None, p.target or None, sources.get(p.text)
        )
        for p in prompts
    ]
