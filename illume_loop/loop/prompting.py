"""The prompts that a run was given: from its file when it is made, and from its database ever after.

Guarantee: a run has the same prompts from its first round to its last, on every host, whatever becomes of the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

from sqlalchemy.orm import Session

from illume_db.prompts import NewPrompt, ensure_prompts, prompts_of_run
from illume_loop.config import AUTO, Settings
from illume_loop.domains import get_domain
from illume_loop.domains.protocol import Domain, Prompt, Split
from illume_loop.domains.text.prompt_set import SPLITS, PromptSet, read_prompt_set
from illume_loop.loop.run_directory import stored_settings
from illume_loop.models.shipped import base_path
from illume_loop.models.world import SHAPES, TEXT, domain_of_checkpoint


def with_domain(settings: Settings, run_dir: Path | None = None) -> Settings:
    """Return the settings with the name of a domain in the place of "auto": the one that the run in `run_dir` was
    started with, or else the one that the base was made for.

    Raises NotFoundError for a base that does not exist, HubError where the hub cannot be asked for it.
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
    # The shapes world has prompts of its own, so prompts from a file ask for the other one.
    return TEXT if domain == SHAPES and settings.run.prompts else domain


def prompts_in_file(settings: Settings) -> PromptSet:
    """The set that the settings name, empty where they name none. Raises PromptFileError."""
    return read_prompt_set(Path(settings.run.prompts)) if settings.run.prompts else PromptSet()


def keep_prompts(session: Session, run_id: int, prompts: PromptSet) -> None:
    """Add a set to the database of a run."""
    for split in SPLITS:
        found = prompts.of_split.get(split, ())
        ensure_prompts(session, run_id, [NewPrompt(split, p.key, p.category, p.text, dict(p.spec)) for p in found])


def kept_prompts(session: Session, run_id: int) -> PromptSet:
    """The prompts that the database has of a run; of a domain with prompts of its own, those that were drawn."""
    of_split: dict[Split, list[Prompt]] = {}
    for row in prompts_of_run(session, run_id):
        prompt = Prompt(row.text, row.category, row.key, row.spec)
        of_split.setdefault(cast(Split, row.split), []).append(prompt)
    return PromptSet({split: tuple(prompts) for split, prompts in of_split.items()})


def domain_of_run(session: Session, run_id: int, settings: Settings) -> Domain:
    """The domain of a run over the prompts that it was given. Raises NotFoundError."""
    return get_domain(settings.run.domain, kept_prompts(session, run_id) if settings.run.prompts else None)
