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
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, SiglipVisionConfig

from illume_loop.domains.shapes.render import CANVAS, CELL
from illume_loop.errors import NoSuchChoiceError, UsageError
from illume_loop.models.illume import IllumeConfig, IllumeForConditionalGeneration
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.processing import SPECIAL_TOKENS, build_processor
from illume_loop.models.illume.quantizer import Quantised, SemanticQuantizer
from illume_loop.models.illume.sequences import SequenceBuilder
from illume_loop.models.sequences import IGNORED_LABEL
from illume_loop.pretrain.batches import Batch, batches_at
from illume_loop.pretrain.contrastive import build_contrastive, contrastive_loss
from illume_loop.pretrain.corpus import Corpus, build_corpus
from illume_loop.pretrain.detokenizing import train_detokenizer
from illume_loop.pretrain.recipe import RECIPES, VISUAL_STAGES, LanguageStage, Recipe
from illume_loop.pretrain.repainting import REPAINTINGS, repaint
from illume_loop.pretrain.scenes import pixel_batch
from illume_loop.pretrain.staged_recipe import shipped_recipes
from illume_loop.pretrain.stepper import ParameterGroup, Progress, train_stage
from illume_loop.pretrain.vision_rows import VisionRowsOnly
from illume_loop.pretrain.vocabulary import base_words, prompt_words


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
