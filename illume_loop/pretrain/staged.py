"""The run of a recipe's stages, one after another, each from the model of the stage before.

    OUT/stage1              a finished stage: a complete checkpoint, recipe.json (how it was made) and losses.json
    OUT/stage1.training     a stage in progress: its checkpoints and their register

Invariants:
- A finished stage is not trained again.
- A stage that was killed resumes from its last whole checkpoint.
- A stage never uses the results of another recipe, model or data.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.data.store import MANIFEST, Manifest, Tokenised
from illume_loop.data.tokenizer import open_tokenizer, tokenizer_digest
from illume_loop.errors import MixError, OtherTokenizerError
from illume_loop.files import raising_storage_full, sha256_of, write_atomically
from illume_loop.pretrain.register import Register, check_asked
from illume_loop.pretrain.stage_training import StageTraining
from illume_loop.pretrain.staged_recipe import Stage, StagedRecipe
from illume_loop.settings import TrainSettings
from illume_loop.train.ray_driver import run_locally_or_on_ray

MADE_BY, LOSSES = "recipe.json", "losses.json"

Progress = Callable[[str, int, int], None]
"""Called with (stage, steps done, total steps)."""


def run_stages(
    recipe: StagedRecipe, model: Path, out: Path, names: Sequence[str] = (), on_progress: Progress = lambda *_: None
) -> Path:
    """Run, or finish, the named stages of a recipe, or all of them; return the model directory of the last one.

    A stage starts from the nearest earlier stage that is in `out`, or from `model` if there is none. Raises
    NotFoundError, MixError, OtherTokenizerError, RecipeChangedError, StageDamagedError, SettingsError, and what
    trainings raise.
    """
    settings = recipe.settings()
    stages = recipe.of_names(names)
    _check_sources(recipe, stages, model)
    out.mkdir(parents=True, exist_ok=True)
    base = model
    with raising_storage_full(out):
        for stage in recipe.stages:
            if stage in stages:
                _run(recipe, stage, base, out, settings, on_progress)
            base = out / stage.name if (out / stage.name).exists() else base
    return out / stages[-1].name


def _run(
    recipe: StagedRecipe, stage: Stage, base: Path, out: Path, settings: TrainSettings, on_progress: Progress
) -> None:
    finished = out / stage.name
    sources = {part.source: recipe.sources[part.source].absolute() for part in stage.mix}
    asked = _asked(recipe, stage, base, sources, settings)
    under_way = out / f"{stage.name}.training"
    if finished.exists():
        check_asked(json.loads((finished / MADE_BY).read_bytes()), asked, stage.name, finished)
        shutil.rmtree(under_way, ignore_errors=True)  # left by a process that was killed at the very end
        return
    register = Register(under_way, stage.name, asked)
    new = out / f".{stage.name}.new"
    shutil.rmtree(new, ignore_errors=True)
    training = StageTraining(
        base.absolute(), new.absolute(), stage, sources, settings, recipe.seed, recipe.rows_at_once, recipe.loaders
    )
    with register.keeping(recipe.keep_every_seconds):
        report = run_locally_or_on_ray(training, lambda done, total: on_progress(stage.name, done, total))
    # The time is left out, so that a resumed training leaves the same file as an uninterrupted one.
    told = {"steps": report.steps, "rows": report.num_rows, "mean_loss": report.mean_loss, "losses": report.losses}
    write_atomically(new / LOSSES, json.dumps(told, indent=1).encode())
    write_atomically(new / MADE_BY, json.dumps(asked, indent=1).encode())
    new.rename(finished)
    register.forget()


def _asked(
    recipe: StagedRecipe, stage: Stage, base: Path, sources: Mapping[str, Path], settings: TrainSettings
) -> dict[str, Any]:
    """Return everything that determines the weights, up to the order of sums.

    The number of processes and the savings other than block-logits do not change the weights, so they are left out.
    """
    return {
        "stage": stage.model_dump(mode="json"),
        "seed": recipe.seed,
        "base": checkpoint_sha256(base),
        "sources": {name: sha256_of(path / MANIFEST) for name, path in sorted(sources.items())},
        "block_logits": "block-logits" in settings.saves,
    }


def _check_sources(recipe: StagedRecipe, stages: Sequence[Stage], model: Path) -> None:
    """Fail now rather than after hours of training, if a source or the size of a step does not fit.

    Raises NotFoundError if a source is not finished, OtherTokenizerError if its ids are of another tokenizer, and
    MixError if the rows of a step do not divide evenly.
    """
    digest = tokenizer_digest(open_tokenizer(model, "cpu"))
    for name in sorted({part.source for stage in stages for part in stage.mix}):
        folder = recipe.sources[name]
        manifest = Manifest.read(folder)
        if manifest.tokenizer != digest:
            raise OtherTokenizerError(path=folder, found=manifest.tokenizer[:12], model=model, expected=digest[:12])
        Tokenised(folder)
    for stage in stages:
        try:
            training = StageTraining(model, model, stage, {}, recipe.settings(), 0, recipe.rows_at_once, 0)
            assert training.passes
        except ValueError as error:
            raise MixError(name=recipe.name, reason=str(error)) from None
