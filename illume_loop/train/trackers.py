"""Trackers of trainings: TensorBoard, Weights & Biases and MLflow, by TRL's `report_to`.

Their local files go into the run directory (on a worker: into its cache), unless the tracker's own environment
variables name another place. A tracker does not change the candidate.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

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
        _end_wandb()
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
