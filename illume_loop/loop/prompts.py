"""The prompts of a run: read from its file when it is made, and from its database afterwards.

Invariants:

- A run has the same prompts from its first round to its last, on every host. Later changes of the file do not matter.
- The source image of an edit is in the artifact store before its prompt is in the database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from sqlalchemy.orm import Session

from illume_db import tables
from illume_db.prompts import PromptRow, ensure_prompts, prompts_of_run
from illume_loop.artifacts.images import ImageStore
from illume_loop.domains import get_domain
from illume_loop.domains.text.prompt_set import SPLITS, PromptSet, read_prompt_set
from illume_loop.errors import UsageError
from illume_loop.loop.run_directory import stored_settings
from illume_loop.models.shipped import SHAPES, TEXT, base_path, domain_of_checkpoint
from illume_loop.protocols import Domain, Prompt, Split
from illume_loop.settings import AUTO, Settings


def with_domain(settings: Settings, run_dir: Path | None = None) -> Settings:
    """Return the settings with the name of a domain in the place of "auto".

    It is the domain that the run in `run_dir` was started with, or else the one that the base was made for. Raises
    NotFoundError for a base that does not exist, HubError if the hub cannot be asked for it.
    """
    if settings.run.domain != AUTO:
        return settings
    stored = stored_settings(run_dir, settings.store.database_url) if run_dir is not None else None
    domain = AUTO if stored is None else str(stored["run"].get("domain", SHAPES))
    if domain == AUTO:
        domain = domain_for(base_path(settings.run.base), settings)
    return settings.model_copy(update={"run": settings.run.model_copy(update={"domain": domain})})


def domain_for(checkpoint: Path, settings: Settings) -> str:
    """Return the name of the domain in which a checkpoint runs under these settings."""
    domain = domain_of_checkpoint(checkpoint)
    # The shapes domain has prompts of its own, so a file of prompts selects the text domain.
    return TEXT if domain == SHAPES and settings.run.prompts else domain


def prompts_in_file(settings: Settings) -> PromptSet:
    """Return the prompts of the file that the settings name; none if they name no file. Raises PromptFileError."""
    return read_prompt_set(Path(settings.run.prompts)) if settings.run.prompts else PromptSet()


def keep_prompts(session: Session, run_id: int, prompts: PromptSet) -> None:
    """Add a set of prompts to the database of a run."""
    for split in SPLITS:
        found = prompts.of_split.get(split, ())
        ensure_prompts(session, run_id, [PromptRow(split, p.key, p.category, p.text, dict(p.spec)) for p in found])


def kept_prompts(session: Session, run_id: int) -> PromptSet:
    """Return the prompts that the database has of a run.

    For a domain with prompts of its own, these are the prompts that were drawn.
    """
    of_split: dict[Split, list[Prompt]] = {}
    for row in prompts_of_run(session, run_id):
        prompt = Prompt(row.text, row.category, row.key, row.spec)
        of_split.setdefault(cast(Split, row.split), []).append(prompt)
    return PromptSet({split: tuple(prompts) for split, prompts in of_split.items()})


def domain_of_run(session: Session, run_id: int, settings: Settings) -> Domain:
    """Return the domain of a run, with the prompts that the run was given. Raises NotFoundError."""
    return get_domain(settings.run.domain, kept_prompts(session, run_id) if settings.run.prompts else None)


PromptColumns = tables.Prompt | PromptRow
"""The types that have the columns of a prompt."""


def prompt_of(row: PromptColumns) -> Prompt:
    """Return a stored prompt as its domain stated it."""
    return Prompt(row.text, row.category, row.key, row.spec, row.instruction or "", row.target or "")


def new_prompts(split: Split, prompts: Sequence[Prompt], domain: Domain, images: ImageStore) -> list[PromptRow]:
    """Return a domain's prompts as the database stores them, and write the sources of edits to `images`."""
    edits = [prompt for prompt in prompts if prompt.is_edit]
    names = images.write_all([domain.source(prompt) for prompt in edits])
    sources = {prompt.text: name for prompt, name in zip(edits, names, strict=True)}
    return [
        PromptRow(
            split, p.key, p.category, p.text, dict(p.spec), p.instruction or None, p.target or None, sources.get(p.text)
        )
        for p in prompts
    ]


def num_prompts(ask: Callable[[int], list[Prompt]], too_many: int) -> int:
    """Return the largest number of prompts below `too_many` that `ask` can give, by bisection.

    A domain does not tell the number. It only raises UsageError if it is asked for too many.
    """
    enough = 0
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        try:
            ask(middle)
            enough = middle
        except UsageError:
            too_many = middle
    return enough
