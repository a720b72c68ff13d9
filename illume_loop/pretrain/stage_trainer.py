"""Training one stage with TRL's SFTTrainer: a rate for each part, and in stage 1 the vision rows alone.

Guarantee: parts without a rate, and the text rows where only vision rows have one, stay bit-identical. The losses of a
training that was killed and goes on are those of one that was not.
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
from illume_loop.pretrain.staged_recipe import Rates
from illume_loop.pretrain.vision_rows import VisionRowsOnly
from illume_loop.train.fitting import common_arguments, fit
from illume_loop.train.head import use_logits
from illume_loop.train.packing import PackingCollator
from illume_loop.train.trainable import load_trainable
from illume_loop.train.trainings import OnStep, TrainReport

BETAS = (0.9, 0.95)
"""Of AdamW, without weight decay: those of the paper's successor; the paper names none."""

Group = dict[str, Any]


class StageTrainer(SFTTrainer):
    """TRL's trainer with groups of parameters, each with its rate, and rows in the order of their positions."""

    def __init__(self, groups: list[Group], **arguments: Any) -> None:
        self.groups = groups
        super().__init__(**arguments)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the groups."""
        del model  # passed by name, so it must be named
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.groups, betas=BETAS, weight_decay=0.0)
        return self.optimizer


def train_stage(training: StageTraining, on_step: OnStep) -> TrainReport:
    """Train a stage in this process, which may be one of several; the first writes the result.

    Raises UsageError for a base of another backend, MixError for a mix that cannot be followed, TrainingDivergedError.
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
            if settings.strategy == "ddp":  # ZeRO steps on copies of its own, for which the mask is enough
                trainer.add_callback(_Restoring(rows_only))
        if settings.saves & {"labelled-logits", "block-logits"}:
            use_logits(backend.model, by_block="block-logits" in settings.saves)
        return fit(trainer, loaded, training.out, stage.steps * stage.batch, on_step)


def trained_parts(model: IllumeForConditionalGeneration, rates: Rates) -> tuple[list[Group], VisionRowsOnly | None]:
    """Freeze what has no rate; groups of the others for an optimizer, and the row mask where only vision rows learn.

    A rate of the encoder is one of the copy that reads: the tokenizer's own stays, and with it the ids.
    """
    model.requires_grad_(False)
    if rates.encoder:
        model.model.give_reader()
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
        "train_sampling_strategy": "sequential",  # the mix is in the right order itself
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
    """Puts the text rows back after each step of the optimizer."""

    def __init__(self, rows: VisionRowsOnly) -> None:
        self.rows = rows

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        del args, state, control  # passed by name, so they must be named
        self.rows.restore()
