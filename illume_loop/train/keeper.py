"""The trainer callback that saves a checkpoint when one is due, at the same step in all processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from illume_loop.train.keeping import CheckpointPlan


class CheckpointCallback(TrainerCallback):
    """A callback that saves a checkpoint when one is due and registers it.

    All processes of a training save at the same steps.
    """

    def __init__(self, keeping: CheckpointPlan, clock: Callable[[], float] = time.monotonic) -> None:
        self.keeping, self.clock = keeping, clock
        self.saved_at = clock()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint if one is due, but not after the last step, which leaves the model itself."""
        is_due = self.clock() - self.saved_at >= self.keeping.every_seconds
        control.should_save = state.global_step < state.max_steps and _agreed(is_due, args.device)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Register the checkpoint that the trainer has just written."""
        del control  # the trainer passes it by name, so the parameter must have this name
        assert args.output_dir is not None
        self.keeping.keep(state.global_step, Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.saved_at = self.clock()


def _agreed(is_due: bool, device: torch.device) -> bool:
    """Return the first process's `is_due`: the clocks differ, and all processes must save together."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return is_due
    flag = torch.tensor([int(is_due)], device=device)
    distributed.broadcast(flag, src=0)
    return bool(flag.item())
