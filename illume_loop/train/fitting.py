"""The common part of all objectives: TRL's arguments, LoRA, the run of a trainer and the writing of a candidate.

Invariants:
- The base checkpoint is only read. The candidate is a complete checkpoint in the same layout.
- The same base, rows, settings and seed on the same machine give the same weights, so a killed training can be rerun.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from illume_loop.errors import TrainingDivergedError
from illume_loop.hooks import OnProgress
from illume_loop.settings import TrainSettings
from illume_loop.train.keeper import CheckpointCallback
from illume_loop.train.keeping import CHECKPOINT_PLAN
from illume_loop.train.sharing import of_process, sharing_arguments, whole_weights
from illume_loop.train.trackers import tracker_of, training_name
from illume_loop.train.trainable import Trainable
from illume_loop.train.trainings import OnStep, TrainReport

LORA_TARGETS = r"model\.language_model\..*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def preparing(on_step: OnStep) -> OnProgress:
    """Return the progress hook for the work before the first step: loading, encoding images, scoring references."""
    return lambda: on_step(0, 0)


def lora_config(settings: TrainSettings) -> LoraConfig | None:
    """Return the LoRA configuration, for the language model only; None if the model itself is trained."""
    if settings.lora_rank == 0:
        return None
    return LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules=LORA_TARGETS)


def in_bfloat16(settings: TrainSettings) -> bool:
    """Return True if a training computes in bfloat16, which it does only on GPUs."""
    return "bf16" in settings.saves and torch.cuda.is_available()


def common_arguments(settings: TrainSettings, seed: int, scratch: str) -> dict[str, Any]:
    """Return the arguments that all TRL trainers share; `scratch` is a folder that may be thrown away."""
    tracker = tracker_of(settings.report_to)
    return {
        "output_dir": scratch,
        "seed": seed,
        "per_device_train_batch_size": of_process(settings.batch_size, settings),
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup_ratio,
        "max_length": None,  # the default of 1,024 would silently cut off image ids
        "remove_unused_columns": False,
        "bf16": in_bfloat16(settings),
        "activation_checkpointing": "checkpointing" in settings.saves,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,  # the log is in the state, so a resumed training has the earlier losses
        "logging_nan_inf_filter": False,  # the default hides a loss of NaN behind the mean of the others
        "report_to": tracker or "none",
        "run_name": training_name() if tracker else None,
        "disable_tqdm": True,
        **sharing_arguments(settings),
    }


def fit(trainer: Trainer, backend: Trainable, out: Path, num_rows: int, on_step: OnStep) -> TrainReport:
    """Run a trainer on the backend's model and write the candidate to `out` in float32, with LoRA merged.

    With several processes, the first one writes. If `CHECKPOINT_PLAN` is set, checkpoints are kept, and the training
    resumes from the newest whole one. Raises TrainingDivergedError if the mean loss or a final weight is not finite.
    """
    started = time.monotonic()
    trainer.add_callback(_Steps(on_step))
    trainer.remove_callback(PrinterCallback)  # it prints to standard output, which is for results only
    result = trainer.train(resume_from_checkpoint=_kept_by(trainer))
    # The trainer's own mean lacks the steps before the checkpoint that it resumed from.
    losses = tuple(float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)
    mean_loss = sum(losses) / len(losses)
    if not math.isfinite(mean_loss):
        raise TrainingDivergedError(what="loss", value=mean_loss)
    with whole_weights(backend.model):
        if trainer.is_world_process_zero():
            _publish(trainer, backend, out)
    # Report again, because merging and writing the weights took time too.
    on_step(result.global_step, result.global_step)
    return TrainReport(num_rows, result.global_step, mean_loss, time.monotonic() - started, losses)


def _kept_by(trainer: Trainer) -> str | None:
    """Let the trainer keep checkpoints if `CHECKPOINT_PLAN` is set; return the folder to resume from, or None."""
    keeping = CHECKPOINT_PLAN.get()
    if keeping is None:
        return None
    trainer.args.output_dir = str(keeping.folder)
    trainer.add_callback(CheckpointCallback(keeping))
    return str(keeping.kept[0].folder) if keeping.kept else None


def _publish(trainer: Trainer, backend: Trainable, out: Path) -> None:
    """Write the candidate in float32, whatever the base is stored in.

    A round changes most weights by less than half a step of bfloat16. Merged or stored in bfloat16, only 38 % of the
    update of a typical LoRA round would be left, and the next round would start from there.
    """
    torch.nn.Module.to(backend.model, device="cpu", dtype=torch.float32)
    if isinstance(trainer.model, PeftModel):
        # Merge and unload in two steps: in one step, peft unties tied embeddings if the head is wider than they are.
        trainer.model.merge_adapter()
        trainer.model.unload()
    if not all(bool(torch.isfinite(weights).all()) for weights in backend.model.parameters()):
        raise TrainingDivergedError(what="weights", value=math.nan)
    backend.model.config.dtype = torch.float32
    backend.save(out)


class _Steps(TrainerCallback):
    """A callback that reports the trainer's steps."""

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, control  # the trainer passes them by name, so the parameters must have these names
        self.on_step(state.global_step, state.max_steps)
