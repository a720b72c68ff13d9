"""The driver of a training on Ray. TorchTrainer starts workers that run our TRL trainers; the driver reports progress.

Invariants:
- The candidate equals that of the same training in one process, up to the order of floating-point sums.
- Workers that die are restarted from the last registered checkpoint, at most `MAX_FAILURES` times.
- A Ray that was started here ends here. An interrupted training ends its workers.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from illume_loop.errors import MissingExtraError, RayUnusableError, TrainingWorkersError
from illume_loop.settings import TrainSettings
from illume_loop.train.keeping import CHECKPOINT_PLAN, CheckpointPlan, KeptCheckpoint
from illume_loop.train.trainings import OnStep, Training, TrainReport, run_training

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

MAX_FAILURES = 3
LOOK_EVERY_SECONDS = 0.2

log = logging.getLogger(__name__)


def run_locally_or_on_ray(training: Training, on_step: OnStep) -> TrainReport:
    """Run a training on Ray or in this process, as its settings say. Raises what `train_on_ray` raises."""
    return train_on_ray(training, on_step) if training.settings.backend == "ray" else run_training(training, on_step)


def train_on_ray(training: Training, on_step: OnStep) -> TrainReport:
    """Run a training on the number of workers that its settings give.

    Raises MissingExtraError without the extra `cluster`, RayUnusableError if the cluster cannot hold the workers,
    TrainingWorkersError if the workers failed too often, and what the training itself raises.
    """
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    try:
        import ray
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        if find_spec("deepspeed") is None:  # the workers need it, and all hosts of a cluster have the same packages
            raise ModuleNotFoundError("deepspeed")
    except ImportError as error:
        raise MissingExtraError(feature="train.backend = 'ray'", extra="cluster") from error
    from illume_loop.train.ray_ledger import Ledger
    from illume_loop.train.ray_worker import CheckpointReporter, Job, work

    keeping = CHECKPOINT_PLAN.get()
    settings, out = training.settings, training.out
    storage = keeping.folder if keeping else out.with_name(f"{out.name}-ray")
    job = Job(training, keeping.every_seconds if keeping else None)
    with _ray(settings):
        on_step(0, 0)
        ledger = ray.remote(num_cpus=0)(Ledger).remote(list(keeping.kept) if keeping else [])
        on_gpus = settings.resources.get("GPU", 0) > 0
        trainer = TorchTrainer(
            work,
            train_loop_config={"job": job, "ledger": ledger},
            scaling_config=ScalingConfig(
                num_workers=settings.workers, use_gpu=on_gpus, resources_per_worker=settings.resources
            ),
            run_config=RunConfig(
                name=uuid4().hex,
                storage_path=str(storage),
                failure_config=FailureConfig(max_failures=MAX_FAILURES),
                # `Keeping.keep` registers checkpoints and deletes the old ones, so Ray must not delete any.
                checkpoint_config=CheckpointConfig(num_to_keep=None),
                callbacks=[CheckpointReporter(ledger)],
            ),
            torch_config=TorchConfig(backend="nccl" if on_gpus else "gloo"),
        )
        try:
            return _RayRun(trainer, ledger, keeping, on_step).report()
        finally:
            if keeping is None:
                shutil.rmtree(storage, ignore_errors=True)


ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # By default Ray gives its workers a lower priority than all other processes of the host.
    "RAY_worker_niceness": "0",
    # Workers import torch before they count as started, which takes long on a busy host or a shared disk.
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",
    # Ray leaves the visible devices of workers without GPUs as they are, and prints no notice of it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Environment variables for a Ray that is started here or joined. A variable that is already set keeps its value."""


@contextmanager
def _ray(settings: TrainSettings) -> Iterator[None]:
    """Connect to the cluster of the settings, or to a local one that ends with the block.

    Raises RayUnusableError.
    """
    import ray

    needed = {name: amount * settings.workers for name, amount in settings.resources.items()}
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING, "configure_logging": False}
    try:
        if settings.ray_address:
            ray.init(address=settings.ray_address, **quiet)
        else:
            num_cpus = max(os.cpu_count() or 1, int(needed.get("CPU", 0)))
            _start_here(num_cpus=num_cpus, include_dashboard=False, **quiet)
    except Exception as error:  # Ray raises errors of many kinds
        raise RayUnusableError(address=settings.ray_address or "this machine", reason=_sentence(error)) from error
    try:
        present = ray.cluster_resources()
        for name, amount in needed.items():
            if present.get(name, 0.0) < amount:
                raise RayUnusableError(
                    address=settings.ray_address or "this machine",
                    reason=f"its workers need {amount:g} {name} and it has {present.get(name, 0.0):g}",
                )
        yield
    finally:
        ray.shutdown()


def _start_here(**options: Any) -> None:
    """Start Ray on this machine. Try twice, because a busy machine may exceed Ray's limit of half a minute."""
    import ray

    # Ray would log how to authenticate, which does not matter for a Ray that ends with the training.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    try:
        ray.init(address="local", **options)
    except Exception:
        log.warning("Ray did not start, trying again", exc_info=True)
        ray.shutdown()
        ray.init(address="local", **options)


class _RayRun:
    """A training that runs in a thread of its own while the calling thread handles its events.

    `on_step` and `keep` must be called from the calling thread only.
    """

    def __init__(self, trainer: TorchTrainer, ledger: Any, keeping: CheckpointPlan | None, on_step: OnStep) -> None:
        self.trainer, self.ledger, self.keeping, self.on_step = trainer, ledger, keeping, on_step
        self.found: TrainReport | None = None
        self.error: BaseException | None = None

    def report(self) -> TrainReport:
        """Wait for the end of the training; return its report or raise its error."""
        thread = Thread(target=self._fit, name="ray-train", daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(LOOK_EVERY_SECONDS)
            self._hear()
        self._hear()
        if self.error is not None:
            raise self.error
        assert self.found is not None, "a training without an error has a report"
        return self.found

    def _fit(self) -> None:
        import ray

        try:
            self.trainer.fit()
        except Exception as error:
            node = ray.nodes()[0]["NodeManagerHostname"] if ray.is_initialized() else "the cluster's hosts"
            self.error = TrainingWorkersError(
                failures=MAX_FAILURES + 1, reason=_sentence(error), logs=f"/tmp/ray/session_latest/logs on {node}"
            )
            self.error.__cause__ = error

    def _hear(self) -> None:
        import ray

        for kind, content in ray.get(self.ledger.take.remote()):
            if kind == "step":
                self.on_step(*content)
            elif kind == "saved" and self.keeping is not None:
                kept = self.keeping.keep(content[0], Path(content[1]))
                assert isinstance(kept, KeptCheckpoint)
                ray.get(self.ledger.registered.remote(kept))
            elif kind == "done":
                self.found = TrainReport(**content)
            elif kind == "failed":
                self.error = content


def _sentence(error: Exception) -> str:
    """Return one line on the first failed worker: the last line of its traceback, or else Ray's first line."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    text = str(next(iter(failures.values())))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1] if "Traceback" in text else lines[0]
