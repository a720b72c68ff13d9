"""Trackers of trainings and updates: TensorBoard, Weights & Biases and MLflow.

TRL's `report_to` tells them of the steps of a training, and `track_update` of an update of reinforcement learning.

Their local files go into the run directory (on a worker: into its cache), unless the tracker's own environment
variables name another place. A tracker does not change the candidate.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from illume_db.urls import sqlite_url
from illume_loop.errors import UsageError

PROJECT = "illume-loop"
"""The name of W&B's project and MLflow's experiment. The run is W&B's group and MLflow's tag."""
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


def tracker_of(report_to: str) -> str | None:
    """Return the tracker that the setting means on this host, or None."""
    if report_to == "auto":
        return "tensorboard" if _is_installed("tensorboard") else None
    return None if report_to == "none" else report_to


def check_tracker(report_to: str) -> None:
    """Raise UsageError if the named tracker is not installed, or would ask for a login later."""
    if report_to in PACKAGES and not _is_installed(report_to):
        package = PACKAGES[report_to][0]
        raise UsageError(f"train.report_to = '{report_to}' needs the package {package}; install it, or set it to none")
    if report_to == "wandb" and os.environ.get("WANDB_MODE", "online") == "online" and not _is_logged_in():
        raise UsageError(
            "train.report_to = 'wandb' needs a login; run `wandb login`, or set WANDB_MODE=offline to keep it here"
        )


def training_name() -> str | None:
    """Return the name of the training in progress. MLflow takes the name only as a trainer's argument."""
    return os.environ.get("WANDB_NAME")


@contextmanager
def tracked(report_to: str, folder: Path, name: str) -> Iterator[None]:
    """Set the trackers' environment variables for the block: where they write, and the training's name.

    Raises what `check_tracker` raises.
    """
    check_tracker(report_to)
    if tracker_of(report_to) is None:
        yield
        return
    with _told_where(folder, name):
        try:
            yield
        finally:
            _end_wandb()


def track_update(
    report_to: str, folder: Path, name: str, step: int, numbers: Mapping[str, float], picture: Image.Image | None
) -> None:
    """Tell the tracker of an update of reinforcement learning: its numbers and, now and then, a picture of its samples.

    All updates of a `name` are one run there, also those of another process. An update that is done again after a kill
    has the same numbers. Raises what `check_tracker` raises.
    """
    check_tracker(report_to)
    tracker = tracker_of(report_to)
    if tracker is None:
        return
    with _told_where(folder, name):
        match tracker:
            case "tensorboard":
                _to_tensorboard(step, numbers, picture)
            case "wandb":
                _to_wandb(f"{folder.name}-{name}", step, numbers, picture)
            case "mlflow":
                _to_mlflow(f"{folder.name}-{name}", name, step, numbers, picture)


def _to_tensorboard(step: int, numbers: Mapping[str, float], picture: Image.Image | None) -> None:
    # Like transformers, take either package; torch's writer is that of the package tensorboard.
    module = "torch.utils.tensorboard" if find_spec("tensorboard") is not None else "tensorboardX"
    writer_of = import_module(module).SummaryWriter
    # The step is purged, because the update may have been told of before the process was killed. A file's name has
    # only the second in it, so updates of one second need a suffix.
    with writer_of(os.environ["TENSORBOARD_LOGGING_DIR"], purge_step=step, filename_suffix=f".{step}") as writer:
        for key, value in numbers.items():
            writer.add_scalar(key, value, step)
        if picture is not None:
            writer.add_image("samples", np.asarray(picture), step, dataformats="HWC")


def _to_wandb(id_: str, step: int, numbers: Mapping[str, float], picture: Image.Image | None) -> None:
    wandb = import_module("wandb")
    if wandb.run is None or wandb.run.id != id_:
        _end_wandb()
        wandb.init(id=id_, resume="allow")
    wandb.log(dict(numbers) | ({} if picture is None else {"samples": wandb.Image(picture)}), step=step)


def _to_mlflow(id_: str, name: str, step: int, numbers: Mapping[str, float], picture: Image.Image | None) -> None:
    mlflow = import_module("mlflow")
    client, experiment = mlflow.MlflowClient(), os.environ["MLFLOW_EXPERIMENT_NAME"]
    known = client.get_experiment_by_name(experiment)
    experiment_id = client.create_experiment(experiment) if known is None else known.experiment_id
    runs = client.search_runs([experiment_id], f"tags.updates = '{id_}'")
    if not runs:
        tags = json.loads(os.environ["MLFLOW_TAGS"]) | {"updates": id_}
        runs = [client.create_run(experiment_id, run_name=name, tags=tags)]
    run_id = runs[0].info.run_id
    for key, value in numbers.items():
        client.log_metric(run_id, key, value, step=step)
    if picture is not None:
        client.log_image(run_id, picture, key="samples", step=step)


@contextmanager
def _told_where(folder: Path, name: str) -> Iterator[None]:
    # W&B and MLflow write elsewhere or fail if the folder does not exist.
    folder.mkdir(parents=True, exist_ok=True)
    ours = {
        "TENSORBOARD_LOGGING_DIR": str(folder / name),
        "WANDB_DIR": str(folder),
        "WANDB_NAME": name,
        "WANDB_PROJECT": PROJECT,
        "WANDB_RUN_GROUP": folder.name,
        "MLFLOW_TRACKING_URI": sqlite_url(folder / "mlflow.db"),
        "MLFLOW_EXPERIMENT_NAME": PROJECT,
        "MLFLOW_TAGS": json.dumps({"run": folder.name}),
        # Without these, they write between the lines of progress, and to standard output, which is for results only.
        "WANDB_SILENT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }
    added = {variable: value for variable, value in ours.items() if variable not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for variable in added:
            os.environ.pop(variable, None)


def _end_wandb() -> None:
    """End W&B's run of this training. Otherwise the next training would go on with it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _is_logged_in() -> bool:
    wandb = import_module("wandb")
    try:
        return bool(wandb.login(prompt=False))
    except TypeError:
        # An older W&B has no `prompt` argument and can only ask, so its login is not checked.
        return True


def _is_installed(tracker: str) -> bool:
    return any(find_spec(package) is not None for package in PACKAGES[tracker])
