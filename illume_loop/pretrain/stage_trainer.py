"""The training of one stage with TRL's SFTTrainer: a learning rate for each part, and the vision rows alone in stage 1.

Invariants:
- Parts without a rate stay bit-identical. So do the text rows if only the vision rows have a rate.
- A resumed training has the losses of an uninterrupted one.
"""

from __future__ import annotations

import tempfile
from typing import Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from illume_loop.data.mixed_rows import MixedRows, PixelCollator, ReadingCollator, Share
from illume_loop.data.store import Tokenised
from illume_loop.errors import MixError, UsageError
from illume_loop.models.illume import IllumeForConditionalGeneration
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.pretrain.stage_training import StageTraining
from illume_loop.pretrain.staged_recipe import LearningRates
from illume_loop.pretrain.vision_rows import VisionRowsOnly
from illume_loop.train.fitting import common_arguments, fit
from illume_loop.train.head import use_logits
from illume_loop.train.packing import PackingCollator
from illume_loop.train.trainable import load_trainable
from illume_loop.train.trainings import OnStep, TrainReport

BETAS = (0.9, 0.95)
"""The betas of AdamW, without weight decay. They are those of the paper's successor; the paper names none."""

Group = dict[str, Any]


class StageTrainer(SFTTrainer):
    """TRL's SFT trainer with groups of parameters, each with its own learning rate."""

    def __init__(self, groups: list[Group], **arguments: Any) -> None:
        self.groups = groups
        super().__init__(**arguments)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Return AdamW over the groups."""
        del model  # the trainer passes it by name, so the parameter must have this name
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.groups, betas=BETAS, weight_decay=0.0)
        return self.optimizer


def train_stage(training: StageTraining, on_step: OnStep) -> TrainReport:
    """Train a stage in this process, which may be one of several; the first one writes the result.

    Raises UsageError for a base of another backend, MixError for an impossible mix, TrainingDivergedError.
    """
    stage, settings = training.stage, training.settings
    loaded = load_trainable(training.base, training.seed, every_weight=True)
    backend = cast(IllumeBackend, loaded)
    if backend.name != IllumeBackend.name:
        raise UsageError(f"{training.base} is no model of the backend illume, which the stages of a recipe train")
    backend.model.config.max_slices = max(stage.max_slices, int(backend.model.config.max_slices))
    groups, rows_only = trained_parts(backend.model, stage.rates)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = StageTrainer(
            groups,
            model=backend.model,
            args=_arguments(training, scratch),
            train_dataset=Dataset.from_dict({"position": np.arange(stage.steps * stage.batch)}),
            data_collator=_collator(training, backend),
            processing_class=backend.tokenizer,
        )
        if rows_only is not None:
            rows_only.mask_gradients()
            if settings.strategy == "ddp":  # ZeRO updates its own copies, for which the gradient mask is enough
                trainer.add_callback(_Restoring(rows_only))
        if settings.saves & {"labelled-logits", "block-logits"}:
            use_logits(backend.model, by_block="block-logits" in settings.saves)
        return fit(trainer, loaded, training.out, stage.steps * stage.batch, on_step)


def trained_parts(
    model: IllumeForConditionalGeneration, rates: LearningRates
) -> tuple[list[Group], VisionRowsOnly | None]:
    """Freeze the parts without a rate; return the optimizer's groups of the others and the vision rows' mask, if any.

    A rate for the encoder trains a copy that only reads. The tokenizer keeps the original, so the ids do not change.
    """
    model.requires_grad_(False)
    if rates.encoder:
        model.model.add_reader()
    rows_only = VisionRowsOnly(model) if rates.vision_rows else None
    parts: list[tuple[float, list[nn.Parameter]]] = [
        (rates.adapter, list(model.model.adapter.parameters())),
        (rates.vision_rows, rows_only.tables if rows_only else []),
        (rates.language, [*model.model.language_model.parameters(), *model.lm_head.parameters()]),
        (rates.encoder, list(model.model.reader.parameters()) if model.model.reader is not None else []),
    ]
    groups: list[Group] = [{"params": parameters, "lr": rate} for rate, parameters in parts if rate and parameters]
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups, rows_only


def _arguments(training: StageTraining, scratch: str) -> SFTConfig:
    stage = training.stage
    arguments = common_arguments(training.settings, training.seed, scratch) | {
        "max_steps": stage.steps,
        "per_device_train_batch_size": training.rows_at_once,
        "gradient_accumulation_steps": training.passes,
        "learning_rate": max(stage.rates.model_dump().values()),
        "warmup_steps": stage.warmup_ratio,
        "train_sampling_strategy": "sequential",  # the mix has already shuffled the rows
        "dataloader_num_workers": training.loaders,
    }
    return SFTConfig(**arguments, dataset_kwargs={"skip_prepare_dataset": True})


def _collator(training: StageTraining, backend: IllumeBackend) -> ReadingCollator:
    stage, settings = training.stage, training.settings
    sources = {name: Tokenised(path) for name, path in training.sources.items()}
    shares = [Share(part.task, part.source, part.weight) for part in stage.mix]
    try:
        rows = MixedRows(
            shares,
            sources,
            backend,
            training.seed,
            stage.name,
            text_dropout=stage.text_dropout,
            max_slices=stage.max_slices,
        )
    except ValueError as error:
        raise MixError(name=stage.name, reason=str(error)) from None
    pad = backend.sequences.pad
    plain = PixelCollator(backend.processor.image_processor, pad, always=settings.strategy != "ddp")
    return ReadingCollator(rows, PackingCollator(plain, pad) if "packing" in settings.saves else plain)


class _Restoring(TrainerCallback):
    """A callback that puts the text rows back after each step of the optimizer."""

    def __init__(self, rows: VisionRowsOnly) -> None:
        self.rows = rows

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, state, control  # the trainer passes them by name, so the parameters must have these names
        self.rows.restore()
