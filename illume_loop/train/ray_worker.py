"""A Ray worker of a training. It runs the same training as one process would, on its share of every step.

Invariants:
- Workers start from a checkpoint of the ledger, which holds only checkpoints that are registered in the database.
- The first worker verifies the checkpoint before any worker reads it.
- A new checkpoint counts once the driver has registered it.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train import Checkpoint, UserCallback

from illume_loop.errors import IllumeLoopError, RayUnusableError
from illume_loop.runtime import prepare
from illume_loop.settings import RuntimeSettings
from illume_loop.train.keeping import CHECKPOINT_PLAN, CheckpointPlan, KeptCheckpoint, from_first_intact
from illume_loop.train.trainings import Training, run_training


@dataclass(frozen=True, slots=True)
class Job:
    """A training whose folders all hosts share. No checkpoint is kept if `every_seconds` is None."""

    training: Training
    every_seconds: float | None


class CheckpointReporter(UserCallback):  # type: ignore[misc]
    """A callback in Ray's controller that tells the driver of each checkpoint that all workers have stored."""

    def __init__(self, ledger: Any) -> None:
        self.ledger = ledger

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Checkpoint | None) -> None:
        """Tell the driver of the checkpoint once all workers have reported it."""
        del run_context  # Ray passes it by name, so the parameter must have this name
        if checkpoint is not None:
            self.ledger.tell.remote("saved", (metrics[0]["step"], checkpoint.path))


def work(config: dict[str, Any]) -> None:
    """Train as one worker.

    An error that would repeat is sent to the driver and not raised, so that Ray does not restart the workers.
    """
    job: Job = config["job"]
    ledger = config["ledger"]
    prepare(RuntimeSettings())
    base, settings = job.training.base, job.training.settings
    if not (base / "config.json").is_file():
        raise RayUnusableError(
            address=settings.ray_address or "this machine",
            reason=f"host {socket.gethostname()} does not see {base}; keep the run's artifacts in a shared folder",
        )
    is_first = ray.train.get_context().get_world_rank() == 0
    last_told = 0

    def on_step(done: int, total: int) -> None:
        nonlocal last_told
        # (0, 0) is a stage before the first step.
        if is_first and (done > last_told or total == 0):
            last_told = max(done, last_told)
            ledger.tell.remote("step", (done, total))

    on_step(0, 0)  # Ray may have taken minutes to start this worker
    with tempfile.TemporaryDirectory() as scratch:
        if job.every_seconds is not None:
            CHECKPOINT_PLAN.set(
                CheckpointPlan(Path(scratch), _agreed_checkpoints(ledger, is_first), _report, job.every_seconds)
            )
        try:
            report = run_training(job.training, on_step)
        except IllumeLoopError as error:
            if not error.repeats:
                raise
            ray.get(ledger.tell.remote("failed", error))
            return
    if is_first:
        # Send plain values, because a TrainReport would make the ledger import the training code.
        ray.get(ledger.tell.remote("done", asdict(report)))


def _report(step: int, folder: Path) -> None:
    """Put this worker's part of a checkpoint into Ray's storage, where the parts of all workers are joined."""
    ray.train.report({"step": step}, checkpoint=Checkpoint.from_directory(str(folder)))
    shutil.rmtree(folder)


def _agreed_checkpoints(ledger: Any, is_first: bool) -> Sequence[KeptCheckpoint]:
    """Return the checkpoint that the first worker found whole; empty if there is none to resume from.

    Only the first worker looks, because another worker could look at another time and find another checkpoint.
    """
    from torch import distributed

    found: list[Sequence[KeptCheckpoint]] = [()]
    if is_first:
        kept: list[KeptCheckpoint] = ray.get(ledger.kept_checkpoints.remote())
        found = [tuple(from_first_intact(kept, lambda *_: None)[:1])]
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.broadcast_object_list(found, src=0)
    return found[0]
