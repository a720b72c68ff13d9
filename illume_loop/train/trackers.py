"""Trackers of trainings: TensorBoard, Weights & Biases and MLflow, by TRL's `report_to`.

What they write locally goes into the run directory (on a worker: into its cache), unless their own variables name
another place. They hear of each step and change none: the candidate is the same with and without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from illume_loop.errors import UsageError

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}


def tracker_of(report_to: str) -> str | None:
    """The tracker that the setting means on this host; None where it means none."""
    if report_to == "auto":
        return "tensorboard" if _is_installed("tensorboard") else None
    return None if report_to == "none" else report_to


def check_tracker(report_to: str) -> None:
    """Raises UsageError where the tracker that is named is not installed."""
    if report_to in PACKAGES and not _is_installed(report_to):
        package = PACKAGES[report_to][0]
        raise UsageError(f"train.report_to = '{report_to}' needs the package {package}; install it, or set it to none")


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
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    added = {variable: value for variable, value in ours.items() if variable not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for variable in added:
            os.environ.pop(variable, None)


def _is_installed(tracker: str) -> bool:
    return any(find_spec(package) is not None for package in PACKAGES[tracker])
