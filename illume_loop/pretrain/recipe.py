"""The ILLUME recipe at tiny scale: encoder, tokenizer, detokenizer, then a language model in three stages.

    encoder      ViT, contrastive with captions of slices
    tokenizer    semantic quantiser on frozen features
    detokenizer  pixels from quantised features
    text         the language model on captions alone; it stands in for the paper's pretrained LLM
    stage1       adapter, and the vision rows of embedding and head
    stage2       language model and adapter
    stage3       as stage 2 at a lower rate; the encoder stays frozen, because the tokenizer shares it here (the paper
                 also tunes the encoder)

The recipe `shapes-web` has two stages more, between stages 2 and 3:

    binding      as stage 2, with a second rise and fall of the learning rate
    reading      as stage 2, but most rows are read, and half of the pictures show a position

Each stage leaves one safetensors file in the output folder. A complete stage is skipped, and a killed stage resumes
from its last checkpoint. The finished model lies in `<out>/model`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, SiglipVisionConfig

from illume_loop.domains.shapes.render import CANVAS, CELL
from illume_loop.domains.shapes.spec import Category
from illume_loop.errors import NoSuchChoiceError, UsageError
from illume_loop.models.illume import IllumeConfig, IllumeForConditionalGeneration
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.processing import SPECIAL_TOKENS, build_processor
from illume_loop.models.illume.quantizer import Quantised, SemanticQuantizer
from illume_loop.models.illume.sequences import SequenceBuilder
from illume_loop.models.sequences import IGNORED_LABEL
from illume_loop.pretrain.batches import Batch, Pairs, Task, batches_at
from illume_loop.pretrain.contrastive import build_contrastive, contrastive_loss
from illume_loop.pretrain.corpus import Corpus, build_corpus
from illume_loop.pretrain.detokenizing import train_detokenizer
from illume_loop.pretrain.repainting import REPAINTINGS, repaint
from illume_loop.pretrain.scenes import pixel_batch
from illume_loop.pretrain.staged_recipe import shipped_recipes
from illume_loop.pretrain.stepper import ParameterGroup, Progress, train_stage
from illume_loop.pretrain.vision_rows import VisionRowsOnly
from illume_loop.pretrain.vocabulary import base_words, prompt_words

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


def run_recipe(
    name: str,
    out: Path,
    stages: Sequence[str] | None = None,
    on_progress: Progress = lambda *_: None,
    base: str | None = None,
) -> Path:
    """Run, or finish, stages of a recipe in `out` (None: all stages); return the model directory.

    `base` names the model for a recipe that trains a detokenizer; see `illume_loop.pretrain.repainting`. Raises
    NoSuchChoiceError for an unknown recipe or stage, UsageError if the recipe needs a base and has none or has one and
    takes none, and what `repaint` raises.
    """
    if name not in {*RECIPES, *REPAINTINGS}:
        raise NoSuchChoiceError(
            kind="recipe", name=name, choices=", ".join([*RECIPES, *REPAINTINGS, *shipped_recipes(), "FILE.toml"])
        )
    known = RECIPES[name].stages if name in RECIPES else ("detokenizer",)
    for stage in stages or ():
        if stage not in known:
            raise NoSuchChoiceError(kind="stage", name=stage, choices=", ".join(known))
    if name in RECIPES:
        if base is not None:
            raise UsageError(f"the recipe {name} makes its own model from nothing; leave out --from")
        return Pretraining(RECIPES[name], out, on_progress).run(stages or RECIPES[name].stages)
    if base is None:
        raise UsageError(f"the recipe {name} trains onto another model; name one, such as --from shapes-instruct")
    return repaint(REPAINTINGS[name], base, out, on_progress)


class Pretraining:
    """The run of one recipe in one folder."""

    def __init__(self, recipe: Recipe, out: Path, on_progress: Progress) -> None:
        self.recipe, self.out, self.on_progress = recipe, out, on_progress
        torch.manual_seed(recipe.seed)
        self.processor = build_processor(_words(recipe), CANVAS)
        self.model = IllumeForConditionalGeneration(_config(recipe))
        _init_small(self.model.model.language_model, self.model.lm_head)
        self.sequences = SequenceBuilder(self.processor.tokenizer, self.model.config)
        self.vision = self.model.model.vision
        self._corpus: Corpus | None = None

    def run(self, stages: Sequence[str]) -> Path:
        """Run the stages in recipe order; return the model directory.

        Other stages that have a file in the folder are loaded from it, and finished if they are incomplete.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        for stage in self.recipe.stages:
            if stage in stages or (self.out / f"{stage}.safetensors").exists():
                getattr(self, f"_{stage}" if stage in VISUAL_STAGES else "_language")(stage)
        path = self.out / "model"
        self.backend().save(path)
        (path / "recipe.json").write_text(json.dumps(asdict(self.recipe), indent=2) + "\n")
        return path

    def backend(self) -> IllumeBackend:
        """Return the model with its current weights."""
        return IllumeBackend(self.model, self.processor, "cpu")

    def _encoder(self, stage: str) -> None:
        torch.manual_seed(self.recipe.seed)
        contrast = build_contrastive(_vision_config(self.recipe))
        self._train(
            stage,
            contrast,
            [ParameterGroup(list(contrast.parameters()), 1e-3, 0.01)],
            lambda step: contrastive_loss(contrast, self.recipe.seed, step, self.recipe.contrastive_batch),
            self.recipe.encoder_steps,
        )
        self.vision.encoder.load_state_dict(contrast.vision_model.state_dict())
        self.vision.requires_grad_(False)

    def _tokenizer(self, stage: str) -> None:
        quantizer = self.vision.quantizer.requires_grad_(True)

        def features(purpose: str, step: int) -> Tensor:
            pixels = pixel_batch(self.recipe.seed, purpose, step, self.recipe.visual_batch)
            with torch.no_grad():
                features_BLH: Tensor = self.vision.to_quantise(pixels * 2 - 1)
            return features_BLH

        quantizer.start_from(torch.cat([features("codebook", step) for step in range(2)]))
        self._train(
            stage,
            quantizer,
            [ParameterGroup(list(quantizer.parameters()), 1e-3)],
            lambda step: _quantiser_loss(quantizer, features("tokenizer", step)),
            self.recipe.tokenizer_steps,
        )
        quantizer.requires_grad_(False)

    def _detokenizer(self, stage: str) -> None:
        train_detokenizer(
            self.vision,
            lambda step: pixel_batch(self.recipe.seed, stage, step, self.recipe.visual_batch),
            steps=self.recipe.detokenizer_steps,
            learning_rate=2e-3,
            checkpoint=self.out / f"{stage}.safetensors",
            on_progress=self.on_progress,
        )

    def _language(self, stage: str) -> None:
        plan = self.recipe.language[stage]
        self.model.requires_grad_(True)
        self.model.freeze_vision()
        groups, after_step = self._groups(stage, plan)

        def loss_at(step: int) -> Tensor:
            batches = batches_at(
                step,
                stage,
                plan.mix,
                self.corpus,
                self.sequences,
                max(1, round(plan.share * self.recipe.language_batch)),
                plan.pairs,
                self.recipe.seed,
            )
            return self._loss(batches)

        self._train(stage, self.model, groups, loss_at, plan.steps, after_step)

    def _loss(self, batches: Sequence[Batch]) -> Tensor:
        """Return the weighted mean loss over the learned ids of all batches."""
        counts = [int((batch.tensors["labels"] != IGNORED_LABEL).sum()) for batch in batches]
        sums = [
            self.model(**batch.tensors, use_cache=False).loss * (batch.weight * count)
            for batch, count in zip(batches, counts, strict=True)
        ]
        return torch.stack(sums).sum() / sum(counts)

    def _groups(self, stage: str, plan: LanguageStage) -> tuple[list[ParameterGroup], Callable[[], None]]:
        adapter = list(self.model.model.adapter.parameters())
        if stage == "stage1":
            rows = VisionRowsOnly(self.model)
            rate = plan.adapter_learning_rate or plan.learning_rate
            return [ParameterGroup(adapter, rate), ParameterGroup(rows.tables, plan.learning_rate)], rows.restore
        taken = {id(p) for p in adapter}
        rest = [p for p in self.model.parameters() if p.requires_grad and id(p) not in taken]
        decayed = [p for p in rest if p.ndim > 1]
        others = [p for p in rest if p.ndim == 1]
        groups = [ParameterGroup(decayed, plan.learning_rate, 0.01), ParameterGroup(others, plan.learning_rate)]
        if stage != "text":
            groups.append(ParameterGroup(adapter, plan.learning_rate))
        return groups, lambda: None

    @property
    def corpus(self) -> Corpus:
        """The tokenised corpus. It is built at first use, after the visual stages."""
        if self._corpus is None:
            self._corpus = build_corpus(
                self.vision, self.recipe.corpus_size, self.recipe.seed, self.out / "corpus", self.on_progress
            )
        return self._corpus

    def _train(
        self,
        stage: str,
        module: nn.Module,
        groups: list[ParameterGroup],
        loss_at: Callable[[int], Tensor],
        steps: int,
        after_step: Callable[[], None] = lambda: None,
    ) -> None:
        checkpoint = self.out / f"{stage}.safetensors"
        train_stage(stage, module, groups, loss_at, steps, checkpoint, self.on_progress, after_step)


def _config(recipe: Recipe) -> IllumeConfig:
    num_text_ids = len(SPECIAL_TOKENS) + len(_words(recipe))
    return IllumeConfig(
        text_config=LlamaConfig(
            hidden_size=recipe.text_width,
            num_hidden_layers=recipe.text_layers,
            num_attention_heads=recipe.text_heads,
            num_key_value_heads=recipe.text_heads,
            intermediate_size=recipe.text_mlp,
            max_position_embeddings=256,
            tie_word_embeddings=False,
        ),
        vision_config=_vision_config(recipe),
        quantised=recipe.quantised,
        image_size=CANVAS,
        num_text_ids=num_text_ids,
        codebook_size=recipe.codebook_size,
        bos_token_id=SPECIAL_TOKENS.index("<bos>"),
        eos_token_id=SPECIAL_TOKENS.index("<eos>"),
        pad_token_id=SPECIAL_TOKENS.index("<pad>"),
    )


def _words(recipe: Recipe) -> list[str]:
    return base_words() if recipe.vocabulary == "all" else prompt_words()


def _vision_config(recipe: Recipe) -> SiglipVisionConfig:
    return SiglipVisionConfig(
        hidden_size=recipe.vision_width,
        intermediate_size=2 * recipe.vision_width,
        num_hidden_layers=recipe.vision_layers,
        num_attention_heads=4,
        image_size=CELL,
        patch_size=8,
        vision_use_head=True,
    )


def _quantiser_loss(quantizer: SemanticQuantizer, features_BLH: Tensor) -> Tensor:
    quantised: Quantised = quantizer(features_BLH)
    return quantised.loss


def _init_small(*modules: nn.Module) -> None:
    """Initialise every matrix of the modules from a normal distribution with standard deviation 0.02."""
    for module in modules:
        for parameter in module.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
