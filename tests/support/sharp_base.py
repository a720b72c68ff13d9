"""A small random illume base whose distributions are far from uniform, made in a few seconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.pretrain.pretraining import Pretraining
from illume_loop.pretrain.recipe import Recipe


def small_recipe() -> Recipe:
    """The shapes recipe in a few seconds: every stage, two steps each."""
    full = Recipe()
    stages = {name: dataclasses.replace(stage, steps=2) for name, stage in full.language.items()}
    return dataclasses.replace(
        full,
        codebook_size=64,
        text_width=40,
        text_layers=2,
        text_mlp=64,
        corpus_size=64,
        encoder_steps=2,
        tokenizer_steps=2,
        detokenizer_steps=2,
        visual_batch=8,
        contrastive_batch=8,
        language_batch=8,
        language=stages,
    )


def sharpened(recipe: Recipe, folder: Path) -> IllumeBackend:
    """A random model with weights large enough that its distributions are far from uniform.

    A freshly initialised model is nearly uniform, and then a wrong log-probability cannot be told from a right one.
    """
    backend = Pretraining(recipe, folder, lambda *_: None).backend()
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in backend.model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn_like(parameter) * (2.0 / parameter.shape[-1] ** 0.5))
    return backend
