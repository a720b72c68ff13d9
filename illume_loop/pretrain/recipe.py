"""The numbers of the recipes at tiny scale: sizes, and the steps, rates and mix of tasks of each stage.

`illume_loop.pretrain.pretraining` carries a recipe out and says what each stage trains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from illume_loop.domains.shapes.spec import Category
from illume_loop.pretrain.batches import Pairs, Task

VISUAL_STAGES = ("encoder", "tokenizer", "detokenizer")
STAGES = (*VISUAL_STAGES, "text", "stage1", "stage2", "binding", "reading", "stage3")


@dataclass(frozen=True, slots=True)
class LanguageStage:
    """One stage of the language model: steps, peak learning rates, the mix of tasks, and how captions are paired."""

    steps: int
    learning_rate: float
    mix: Mapping[Task, float]
    pairs: Pairs = field(default_factory=Pairs)
    adapter_learning_rate: float | None = None
    share: float = 1.0
    """The share of the recipe's batch size. A mix that lacks tasks has a smaller batch, so that the rows of the other
    tasks stay as many."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The numbers of a recipe."""

    name: str = "shapes"
    seed: int = 0
    codebook_size: int = 1024
    vision_width: int = 128
    vision_layers: int = 2
    text_width: int = 160
    text_layers: int = 4
    text_heads: int = 5
    text_mlp: int = 432
    corpus_size: int = 60_000
    encoder_steps: int = 400
    tokenizer_steps: int = 1_000
    detokenizer_steps: int = 800
    visual_batch: int = 128
    contrastive_batch: int = 96
    language_batch: int = 64
    quantised: Literal["features", "pixels"] = "features"
    vocabulary: Literal["all", "prompts"] = "all"
    """The words that the model has. A model that has only those of prompts refuses questions, which it never saw."""
    language: Mapping[str, LanguageStage] = field(
        default_factory=lambda: {
            "text": LanguageStage(150, 2e-3, {"text": 1.0}),
            "stage1": LanguageStage(300, 1e-3, {"reconstruct": 0.5, "read": 0.5}, adapter_learning_rate=5e-3),
            # Clean pairs come before noisy ones: strong noise from the start slows the binding of words to ids.
            "stage2": LanguageStage(3_000, 2e-3, {"draw": 0.70, "read": 0.28, "text": 0.02}, Pairs(0.1)),
            "stage3": LanguageStage(500, 5e-4, {"draw": 0.75, "read": 0.25}),
        }
    )

    @property
    def stages(self) -> tuple[str, ...]:
        """The recipe's stages, in order."""
        return tuple(stage for stage in STAGES if stage in VISUAL_STAGES or stage in self.language)


def _web() -> Recipe:
    """Return a recipe that teaches a skill by true pairs, and then, in stage 3, the flaws of the web.

    Two colours are bound to two shapes only after about 10^5 true pairs, so they are half of the rows. The order of
    two shapes is read at chance until most rows are read, so there is a stage for this. The captions that are read are
    true in all stages, so that the model judges better than it draws.
    """
    mix: Mapping[Task, float] = {"draw": 0.75, "read": 0.25}
    hardest: Mapping[Category, float] = {
        "single_object": 0.02,
        "two_objects": 0.08,
        "counting": 0.11,
        "colors": 0.05,
        "position": 0.22,
        "color_attribution": 0.52,
    }
    placed: Mapping[Category, float] = {
        "single_object": 0.02,
        "two_objects": 0.05,
        "counting": 0.1,
        "colors": 0.03,
        "position": 0.5,
        "color_attribution": 0.3,
    }
    of_the_web: Mapping[Category, float] = {
        "single_object": 0.04,
        "two_objects": 0.12,
        "counting": 0.20,
        "colors": 0.14,
        "position": 0.20,
        "color_attribution": 0.30,
    }
    web = Pairs(0.1, caption_noise_read=0.0, typical=0.45, categories=of_the_web)
    stages = {
        "text": LanguageStage(150, 2e-3, {"text": 1.0}, Pairs(0.0)),
        "stage1": LanguageStage(200, 1e-3, {"reconstruct": 0.5, "read": 0.5}, Pairs(0.0), adapter_learning_rate=5e-3),
        "stage2": LanguageStage(2_300, 2e-3, mix, Pairs(0.0, categories=hardest)),
        "binding": LanguageStage(1_000, 1.5e-3, {"draw": 0.7, "read": 0.3}, Pairs(0.0, categories=hardest)),
        "reading": LanguageStage(250, 1.5e-3, {"draw": 0.35, "read": 0.65}, Pairs(0.0, categories=placed), share=2.0),
        "stage3": LanguageStage(300, 5e-4, {"draw": 0.6, "read": 0.4}, web, share=1.25),
    }
    return Recipe(name="shapes-web", vocabulary="prompts", language=stages)


def _instruct() -> Recipe:
    """Return the default recipe with another stage 3, which also teaches questions, grades, critiques and edits."""
    mix: Mapping[Task, float] = {
        "draw": 0.36,
        "read": 0.20,
        "text": 0.02,
        "question": 0.18,
        "rate": 0.02,
        "critique": 0.07,
        "ask": 0.02,
        "edit": 0.13,
    }
    return Recipe(name="shapes-instruct", language={**Recipe().language, "stage3": LanguageStage(1_500, 8e-4, mix)})


def _small() -> Recipe:
    """Return the recipe for comparisons.

    It has the parts and proportions of `shapes-instruct`, takes a few minutes and gives a weaker model.
    """
    steps = {"text": 100, "stage1": 150, "stage2": 1_000, "stage3": 300}
    return Recipe(
        name="shapes-small",
        corpus_size=12_000,
        encoder_steps=250,
        tokenizer_steps=500,
        detokenizer_steps=500,
        visual_batch=64,
        language={name: replace(stage, steps=steps[name]) for name, stage in _instruct().language.items()},
    )


RECIPES: Mapping[str, Recipe] = {recipe.name: recipe for recipe in (Recipe(), _web(), _instruct(), _small())}
