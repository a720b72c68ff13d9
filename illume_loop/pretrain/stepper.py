"""A training stage that can be killed and resumed.

Invariants:
- A resumed stage continues exactly at its last checkpoint. Batches depend only on the step, and a checkpoint holds
  weights, optimizer moments and the step.
- A half-written checkpoint is never read: a checkpoint is written under a temporary name and renamed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from illume_loop.files import write_atomically

Progress = Callable[[str, int, int, float], None]
"""Called with (stage, steps done, total steps, last loss)."""

CHECKPOINT_EVERY = 250  # steps


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that share a peak learning rate."""

    parameters: list[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0


def train_stage(
    stage: str,
    module: nn.Module,
    groups: list[ParameterGroup],
    loss_at: Callable[[int], Tensor],
    steps: int,
    checkpoint: Path,
    on_progress: Progress,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """Minimise `loss_at(step)` for `steps` steps of AdamW with a one-cycle schedule.

    The stage resumes from the file `checkpoint` if it exists. `after_step` runs after each update, for masks that must
    hold whatever the optimizer does.
    """
    optimizer = torch.optim.AdamW(
        [{"params": g.parameters, "lr": g.learning_rate, "weight_decay": g.weight_decay} for g in groups],
        betas=(0.9, 0.98),
    )
    peaks = [group.learning_rate for group in groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, total_steps=steps + 1, pct_start=0.05)
    start = _restore(checkpoint, module, optimizer, schedule) if checkpoint.exists() else 0
    trained = [p for group in groups for p in group.parameters]
    module.train()
    for step in range(start, steps):
        loss = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        after_step()
        done = step + 1
        if done % 25 == 0 or done == steps:
            on_progress(stage, done, steps, float(loss.detach()))
        if done % CHECKPOINT_EVERY == 0 or done == steps:
            _save(checkpoint, module, optimizer, done)
    module.eval()


def claim(path: Path, content: Mapping[str, object]) -> list[str]:
    """Record in a file what its folder is for. If the file exists, return the names of the values that differ."""
    wanted = json.loads(json.dumps(content))
    if not path.exists():
        write_atomically(path, json.dumps(wanted, indent=2).encode())
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    return [name for name in wanted if found.get(name) != wanted[name]]


def _save(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    tensors = {f"module.{name}": tensor.detach().contiguous() for name, tensor in _all_tensors(module).items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor.contiguous() for name, tensor in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".partial")
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, temporary, metadata={"step": str(step)})
    temporary.replace(path)


def _restore(
    path: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> int:
    state: dict[int, dict[str, Tensor]] = {}
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
        targets = _all_tensors(module)
        for name in file.keys():  # noqa: SIM118 - safe_open is no mapping
            kind, rest = name.split(".", 1)
            if kind == "module":
                targets[rest].data.copy_(file.get_tensor(name))
            else:
                index, key = rest.split(".", 1)
                state.setdefault(int(index), {})[key] = file.get_tensor(name)
    full = optimizer.state_dict()
    full["state"] = state
    optimizer.load_state_dict(full)
    schedule.load_state_dict({"last_epoch": step - 1, "_step_count": step + 1})
    schedule.step()
    return step


def _all_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return parameters and all buffers by name.

    Non-persistent buffers are included, because a checkpoint needs the codebook's averages.
    """
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
