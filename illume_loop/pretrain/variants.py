"""Recipes that differ from another in one thing, for ablations of the pretraining."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from illume_loop.files import write_atomically
from illume_loop.pretrain.batches import Task
from illume_loop.pretrain.pretraining import Pretraining
from illume_loop.pretrain.recipe import STAGES, LanguageStage, Recipe
from illume_loop.pretrain.stepper import Progress

Learns = Literal["both", "generation", "understanding"]
Quantised = Literal["features", "pixels"]

TASKS_OF: Mapping[Learns, frozenset[Task]] = {
    "generation": frozenset({"draw", "reconstruct", "edit"}),
    "understanding": frozenset({"read", "question", "rate", "critique"}),
}
"""The tasks that end in an image, and those that begin with an image and end in words. Text tasks are in neither."""

VISUAL = STAGES[: STAGES.index("text")]


def variant(recipe: Recipe, *, seed: int, learns: Learns = "both", quantised: Quantised = "features") -> Recipe:
    """Return the recipe with another seed, without the tasks of one kind, or with a quantiser of pixels.

    Tasks that are left out are not replaced: batches are smaller by their share. So every variant sees the same number
    of rows of the kinds that it learns, in the same number of steps, and a difference is the effect of the other rows.
    """
    others = frozenset[Task]().union(*(tasks for kind, tasks in TASKS_OF.items() if learns not in ("both", kind)))
    language = {name: _without(stage, others) for name, stage in recipe.language.items()}
    return replace(recipe, seed=seed, quantised=quantised, language=language)


def pretrain_sharing(recipe: Recipe, out: Path, shared: Path, on_progress: Progress) -> Path:
    """Run, or finish, a recipe in `out`; return the model directory.

    The visual stages and the corpus are made in `shared` first, for all recipes that have them in common.
    """
    visual = Pretraining(recipe, shared, on_progress)
    visual.run(VISUAL)
    assert visual.corpus is not None  # reading the property builds the corpus
    out.mkdir(parents=True, exist_ok=True)
    for stage in VISUAL:
        target = out / f"{stage}.safetensors"
        if not target.exists():
            write_atomically(target, (shared / target.name).read_bytes())
    if not (out / "corpus").exists():
        # The link is relative, so that the folder that holds both may be moved.
        (out / "corpus").symlink_to(os.path.relpath(shared / "corpus", out))
    return Pretraining(recipe, out, on_progress).run(STAGES)


def visual_part(recipe: Recipe) -> Recipe:
    """Return the recipe's visual part, which is equal for all recipes with the same visual stages and corpus."""
    return replace(recipe, name="visual", language=Recipe().language)


def _without(stage: LanguageStage, tasks: frozenset[Task]) -> LanguageStage:
    kept = {task: weight for task, weight in stage.mix.items() if task not in tasks}
    return replace(stage, mix=kept, share=stage.share * sum(kept.values()) / sum(stage.mix.values()))
