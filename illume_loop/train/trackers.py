"""Trackers of trainings: TensorBoard, Weights & Biases and MLflow, by TRL's `report_to`.

What they write locally goes into the run directory (on a worker: into its cache), unless their own variables name
another place. They hear of each step and change none: the candidate is the same with and without.
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
"""The project of W&B and the experiment of MLflow; the run is W&B's group, and MLflow's tag."""
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


def tracker_of(report_to: str) -> str | None:
    """The tracker that the setting means on this host; None where it means none."""
    if report_to == "auto":
        return "tensorboard" if _is_installed("tensorboard") else None
    return None if report_to == "none" else report_to


def check_tracker(report_to: str) -> None:
    """Raises UsageError where the tracker that is named is not installed, or would ask for a login later on."""
    if report_to in PACKAGES and not _is_installed(report_to):
        package = PACKAGES[report_to][0]
        raise UsageError(f"train.report_to = '{report_to}' needs the package {package}; install it, or set it to none")
    if report_to == "wandb" and os.environ.get("WANDB_MODE", "online") == "online" and not _is_logged_in():
        raise UsageError(
            "train.report_to = 'wandb' needs a login; run `wandb login`, or set WANDB_MODE=offline to keep it here"
        )


def training_name() -> str | None:
    """What the training under way is called; MLflow hears of it by an argument alone."""
    return os.environ.get("WANDB_NAME")


@contextmanager
def tracked(report_to: str, folder: Path, name: str) -> Iterator[None]:
    """Tell trackers, for as long as the block lasts, where to write, and what the training is called.

    Raises UsageError where the tracker that is named is not installed.
    """
    check_tracker(report_to)
    if tracker_of(report_to) is None:
        yield
        return
    # W&B and MLflow write elsewhere, or fail, where the folder is not there.
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
        # They would write between the lines of progress, and onto standard output, which belongs to results.
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
    """W&B would go on with this training's run in the next one."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish()


def _is_logged_in() -> bool:
    wandb = import_module("wandb")
    try:
        return bool(wandb.login(prompt=False))
    except TypeError:
        # Older ones can only ask.
        return True


def _is_installed(tracker: str) -> bool:
    return any(find_spec(package) is not None for package in PACKAGES[tracker])
