"""Recipes that train another detokenizer for an existing model. Its image ids stay the same and are painted anew.

The tokenizer, the language model and the processor are not changed, so the new model draws the same ids for the same
prompts and seeds. A folder belongs to one recipe and one model, which `base.json` names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.errors import RepaintingChangedError, UsageError
from illume_loop.models.illume import IllumeConfig
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.detokenizer import build_detokenizer
from illume_loop.models.illume.detokenizer_conv import ConvDetokenizer
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import base_path
from illume_loop.pretrain.detokenizing import PixelBatches, normalised, train_detokenizer
from illume_loop.pretrain.scenes import pixel_batch
from illume_loop.pretrain.stepper import Progress, claim


@dataclass(frozen=True, slots=True)
class DetokenizerRecipe:
    """The numbers of such a recipe. `IllumeConfig` explains those of the detokenizer."""

    name: str
    seed: int = 0
    channels: tuple[int, ...] = (96,)
    patch: int = 8
    upscale: Literal[1, 2] = 1
    painting_steps: int = 4
    guidance: float = 1.0
    steps: int = 500
    batch: int = 64
    learning_rate: float = 1e-3

    def pixels_at(self, step: int) -> Tensor:
        """Return the step's pictures of the shapes world as pixels."""
        return pixel_batch(self.seed, self.name, step, self.batch, self.upscale)


REPAINTINGS: Mapping[str, DetokenizerRecipe] = {
    recipe.name: recipe
    for recipe in (
        DetokenizerRecipe("shapes-diffusion"),
        DetokenizerRecipe("shapes-diffusion-2x", patch=16, upscale=2, batch=32),
    )
}


def repaint(
    recipe: DetokenizerRecipe, base: str, out: Path, on_progress: Progress, pixels_at: PixelBatches | None = None
) -> Path:
    """Train, or finish, a diffusion detokenizer for the model `base` in `out`; return the model directory.

    `base` is a shipped base, a model directory or a hub id. Its own convolutional detokenizer makes the drafts of the
    new one. `pixels_at` replaces the recipe's pictures. Raises NotFoundError if there is no such model, UsageError if
    it is not an ILLUME model, and RepaintingChangedError for a folder of another model or recipe.
    """
    path = base_path(base)
    backend = load_model(path)
    if not isinstance(backend, IllumeBackend):
        raise UsageError(f"{base} is a {backend.name} model, which paints in its own way; name an ILLUME model")
    out.mkdir(parents=True, exist_ok=True)
    names = claim(out / "base.json", {"recipe": asdict(recipe), "base": checkpoint_sha256(path)})
    if names:
        raise RepaintingChangedError(path=str(out), names=" and ".join(names))
    torch.manual_seed(recipe.seed)
    vision = backend.model.model.vision
    backend.model.config = backend.model.model.config = _repainted(backend.model.config, recipe)
    before, vision.detokenizer = vision.detokenizer, build_detokenizer(backend.model.config)
    draft = before if isinstance(before, ConvDetokenizer) else before.draft
    vision.detokenizer.draft.load_state_dict(draft.state_dict())
    train_detokenizer(
        vision,
        pixels_at or recipe.pixels_at,
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        checkpoint=out / "detokenizer.safetensors",
        on_progress=on_progress,
        seed=recipe.seed,
        replaces_ids=True,
        normalise=partial(normalised, backend.processor.image_processor),
    )
    backend.save(out / "model")
    (out / "model" / "recipe.json").write_text(json.dumps(asdict(recipe), indent=2) + "\n")
    return out / "model"


def _repainted(config: IllumeConfig, recipe: DetokenizerRecipe) -> IllumeConfig:
    changes = {
        "detokenizer": "diffusion",
        "detokenizer_channels": list(recipe.channels),
        "detokenizer_patch": recipe.patch,
        "detokenizer_upscale": recipe.upscale,
        "detokenizer_steps": recipe.painting_steps,
        "detokenizer_guidance": recipe.guidance,
    }
    return IllumeConfig.from_dict({**config.to_dict(), **changes})
