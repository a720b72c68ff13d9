"""What all objectives share: TRL arguments with its silent defaults set right, LoRA, and from a trainer to a candidate.

Guarantee: the base checkpoint is only read; the candidate is a complete checkpoint in the same layout. The same base,
rows, settings and seed on the same machine give the same weights, so a killed training is simply run again.
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
from illume_loop.train.keeper import Keeper
from illume_loop.train.keeping import KEEPING
from illume_loop.train.sharing import of_process, sharing_arguments, whole_weights
from illume_loop.train.trackers import tracker_of, training_name
from illume_loop.train.trainable import Trainable
from illume_loop.train.trainings import OnStep, TrainReport

LORA_TARGETS = r"model\.language_model\..*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def preparing(on_step: OnStep) -> OnProgress:
    """Return the hook of what comes before the first step: loading the model, encoding images, scoring references."""
    return lambda: on_step(0, 0)


def lora_config(settings: TrainSettings) -> LoraConfig | None:
    """LoRA on the language model only; None trains the model itself."""
    if settings.lora_rank == 0:
        return None
    return LoraConfig(r=settings.lora_rank, lora_alpha=2 * settings.lora_rank, target_modules=LORA_TARGETS)


def in_bfloat16(settings: TrainSettings) -> bool:
    """Return whether a training computes in bfloat16, which is done on GPUs alone."""
    return "bf16" in settings.saves and torch.cuda.is_available()


def common_arguments(settings: TrainSettings, seed: int, scratch: str) -> dict[str, Any]:
    """Arguments for the configuration of any TRL trainer; `scratch` is a folder that may be thrown away."""
    tracker = tracker_of(settings.report_to)
    return {
        "output_dir": scratch,
        "seed": seed,
        "per_device_train_batch_size": of_process(settings.batch_size, settings),
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup_ratio,
        "max_length": None,  # the default of 1,024 would cut image ids off without a word
        "remove_unused_columns": False,
        "bf16": in_bfloat16(settings),
        "activation_checkpointing": "checkpointing" in settings.saves,
        "activation_checkpointing_kwargs": {"use_reentrant": False},
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": False,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,  # into the state alone: what a training that goes on has lost before is in its checkpoint
        "logging_nan_inf_filter": False,  # the default hides a loss that is no number behind the mean of the others
        "report_to": tracker or "none",
        "run_name": training_name() if tracker else None,
        "disable_tqdm": True,
        **sharing_arguments(settings),
    }


def fit(trainer: Trainer, backend: Trainable, out: Path, num_rows: int, on_step: OnStep) -> TrainReport:
    """Run a trainer on the backend's model and write the candidate to `out` in float32, LoRA merged.

    Of several processes the first writes. Where `KEEPING` says so, checkpoints are kept, and the training goes on from
    the newest of those that there are. Raises TrainingDivergedError when the loss, or a weight after the last step, is
    no finite number.
    """
    started = time.monotonic()
    trainer.add_callback(_Steps(on_step))
    trainer.remove_callback(PrinterCallback)  # it prints to standard output, which belongs to results
    result = trainer.train(resume_from_checkpoint=_kept_by(trainer))
    # The trainer's own mean forgets the steps before a checkpoint that it went on from.
    losses = tuple(float(entry["loss"]) for entry in trainer.state.log_history if "loss" in entry)
    mean_loss = sum(losses) / len(losses)
    if not math.isfinite(mean_loss):
        raise TrainingDivergedError(what="loss", value=mean_loss)
    with whole_weights(backend.model):
        if trainer.is_world_process_zero():
            _publish(trainer, backend, out)
    # Again: merging and writing the weights took its time too.
    on_step(result.global_step, result.global_step)
    return TrainReport(num_rows, result.global_step, mean_loss, time.monotonic() - started, losses)


def _kept_by(trainer: Trainer) -> str | None:
    """Let the trainer keep checkpoints where it is to; the folder of the one to go on from."""
    keeping = KEEPING.get()
    if keeping is None:
        return None
    trainer.args.output_dir = str(keeping.folder)
    trainer.add_callback(Keeper(keeping))
    return str(keeping.kept[0].folder) if keeping.kept else None


def _publish(trainer: Trainer, backend: Trainable, out: Path) -> None:
    """Write the candidate in float32, whatever the base is stored in.

    A round changes most weights by less than half a step of bfloat16: merged into or stored in it, 38 % of the update
    of a typical LoRA round are left, and the next round starts from there.
    """
    torch.nn.Module.to(backend.model, device="cpu", dtype=torch.float32)
    if isinstance(trainer.model, PeftModel):
        # In two steps: in one, peft declares tied embeddings untied where it finds that the head is wider than they.
        trainer.model.merge_adapter()
        trainer.model.unload()
    if not all(bool(torch.isfinite(weights).all()) for weights in backend.model.parameters()):
        raise TrainingDivergedError(what="weights", value=math.nan)
    backend.model.config.dtype = torch.float32
    backend.save(out)


class _Steps(TrainerCallback):
    """Passes the trainer's progress on."""

    def __init__(self, on_step: OnStep) -> None:
        self.on_step = on_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        del args, control  # passed by name, so they must be named
        self.on_step(state.global_step, state.max_steps)
