"""Supervised fine-tuning of a candidate with TRL's SFTTrainer over the unified vocabulary.

Guarantee: the base checkpoint is only read; the candidate is a complete checkpoint in the same layout. The same base,
rows, settings and seed on the same machine give the same weights, so a killed training is simply run again.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from illume_loop.config import TrainSettings
from illume_loop.errors import TrainingDivergedError
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.models.illume.modeling import IllumeForConditionalGeneration
from illume_loop.train.dataset import build_dataset
from illume_loop.train.rows import TrainingRow

OnStep = Callable[[int, int], None]
"""Called with (optimizer steps done, steps in all)."""

LORA_TARGETS = r"model\.language_model\..*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


@dataclass(frozen=True, slots=True)
class TrainReport:
    """What a training did: losses are means over labelled ids, in nats."""

    num_rows: int
    steps: int
    mean_loss: float
    seconds: float


def train_sft(
    base: Path, rows: Sequence[TrainingRow], out: Path, settings: TrainSettings, seed: int, on_step: OnStep
) -> TrainReport:
    """Train a copy of the checkpoint `base` on `rows` and write the candidate to `out`.

    Raises TrainingDivergedError when the loss is no longer a finite number.
    """
    started = time.monotonic()
    set_seed(seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    backend = IllumeBackend.load(base, device)
    backend.model.freeze_vision()
    dataset, collator = build_dataset(rows, backend, settings.text_dropout, seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            model=_trainable(backend.model, settings),
            args=sft_arguments(settings, seed, scratch),
            train_dataset=dataset,
            data_collator=collator,
            processing_class=backend.processor.tokenizer,
            callbacks=[_Steps(on_step)],
        )
        trainer.remove_callback(PrinterCallback)  # it prints to standard output, which belongs to results
        result = trainer.train()
    if not math.isfinite(result.training_loss):
        raise TrainingDivergedError(loss=result.training_loss)
    trained = trainer.model.merge_and_unload() if isinstance(trainer.model, PeftModel) else backend.model
    IllumeBackend(trained, backend.processor, "cpu").save(out)
    return TrainReport(len(rows), result.global_step, result.training_loss, time.monotonic() - started)


def _trainable(model: IllumeForConditionalGeneration, settings: TrainSettings) -> PreTrainedModel | PeftModel:
    """The model itself, or with LoRA on the language model only."""
    if settings.lora_rank == 0:
        return model
    return get_peft_model(
        model, LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules=LORA_TARGETS)
    )


def sft_arguments(settings: TrainSettings, seed: int, scratch: str) -> SFTConfig:
    """TRL arguments with its silent defaults set right; `scratch` is a folder that may be thrown away."""
    return SFTConfig(
        output_dir=scratch,
        seed=seed,
        per_device_train_batch_size=settings.batch_size,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_ratio,
        max_length=None,  # the default of 1,024 would cut image ids off without a word
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        activation_checkpointing=False,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        dataloader_pin_memory=False,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


class _Steps(TrainerCallback):
    """Passes the trainer's progress on."""

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, control  # passed by name, so they must be named
        self.on_step(state.global_step, state.max_steps)
