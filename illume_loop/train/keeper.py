"""The trainer's side of keeping a training: when a checkpoint is due, and that all processes save at the same steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from illume_loop.train.keeping import Keeping


class Keeper(TrainerCallback):
    """Saves when it is time and hands on what was saved. All processes of a training save at the same steps."""

    def __init__(self, keeping: Keeping, clock: Callable[[], float] = time.monotonic) -> None:
        self.keeping, self.clock = keeping, clock
        self.saved_at = clock()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Ask for a checkpoint, but not after the last step: then there is the model itself."""
        is_due = self.clock() - self.saved_at >= self.keeping.every_seconds
        control.should_save = state.global_step < state.max_steps and _agreed(is_due, args.device)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Register what the trainer has just written."""
        del control  # passed by name, so it must be named
        assert args.output_dir is not None
        self.keeping.keep(state.global_step, Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.saved_at = self.clock()


def _agreed(is_due: bool, device: torch.device) -> bool:
    """What the first process finds: clocks differ, and a checkpoint takes all of them."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return is_due
    flag = torch.tensor([int(is_due)], device=device)
    distributed.broadcast(flag, src=0)
    return bool(flag.item())
