"""The registry of backends, which finds a checkpoint's backend by the `model_type` in its config.json.

A backend is an entry point of the group `illume_loop.backends`; its name is the model type. Its object has two methods:

- `load(path, device[, dtype, on_progress]) -> UnifiedModel`. If it has a parameter `on_progress`, it gets the hook. Its
  model should call the hook at least every minute while it works: a worker loses its unit if no progress is reported
  for as long as a lease lasts.
- `train`, an `illume_loop.protocols.TrainFunction`. The backends of this package have none, because `illume_loop.train`
  trains their models.

This module imports no backend, because a process that loads no model needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import Any, Protocol, cast

from illume_loop.errors import CorruptArtifactError, IllumeLoopError, NotFoundError, UsageError
from illume_loop.hooks import OnProgress, ignore
from illume_loop.protocols import UnifiedModel

ENTRY_POINT_GROUP = "illume_loop.backends"
STORED = "stored"
"""The value of `runtime.weights` that keeps the stored precision."""


class Backend(Protocol):
    """A backend, as an entry point of the group provides it."""

    def load(self, path: Path, device: str) -> UnifiedModel:
        """Load a checkpoint directory in its stored precision.

        A backend may take a third argument, `dtype`: the name of the precision in which to load instead.
        """
        ...


def load_model(
    path: Path, *, device: str = "cpu", weights: str = STORED, on_progress: OnProgress = ignore
) -> UnifiedModel:
    """Load a checkpoint directory, in its stored precision or in that of the setting `runtime.weights`.

    `on_progress` is called after each stage of loading, and by the model after each batch of its work.

    Raises NotFoundError if there is no checkpoint, or no backend for its type. Raises UsageError for a layout that no
    backend reads and for a precision that the backend does not load. Raises CorruptArtifactError if the checkpoint
    cannot be read.
    """
    try:
        model_type = _model_type(path)
        load = _backend(model_type).load
        if weights == STORED:
            return call_load(load, path, _device(device), on_progress)
        if "dtype" not in signature(load).parameters:
            raise UsageError(f"the backend '{model_type}' loads weights as stored only; set runtime.weights = 'stored'")
        return call_load(partial(cast(Any, load), dtype=weights), path, _device(device), on_progress)
    except IllumeLoopError:
        raise
    except Exception as error:  # safetensors, json and transformers each raise an error of their own for a damaged file
        raise CorruptArtifactError(path=str(path), expected="a readable checkpoint", found=str(error)) from error


def call_load(
    load: Callable[..., UnifiedModel], path: Path, device: str, on_progress: OnProgress = ignore
) -> UnifiedModel:
    """Call a function that loads a model; pass `on_progress` if the function takes it."""
    if "on_progress" in signature(load).parameters:
        return load(path, device, on_progress=on_progress)
    return load(path, device)


def backend_of(checkpoint: Path) -> Backend:
    """Return the backend of a checkpoint directory. Raises the errors of `load_model`, but those about weights."""
    return _backend(_model_type(checkpoint))


def _model_type(path: Path) -> str:
    config = path / "config.json"
    if not config.is_file():
        raise NotFoundError(kind="checkpoint", name=str(path))
    try:
        return str(json.loads(config.read_text())["model_type"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifactError(path=str(path), expected="a readable checkpoint", found=str(error)) from error


def _backend(model_type: str) -> Backend:
    if model_type == "illume":
        from illume_loop.models.illume.backend import IllumeBackend

        return IllumeBackend
    if model_type == "janus":
        from illume_loop.models.janus.backend import JanusBackend

        return JanusBackend
    if model_type == "multi_modality":
        raise UsageError(
            "this is Janus in its authors' own layout, which needs code of theirs; use the checkpoint in transformers' "
            "layout, such as deepseek-community/Janus-Pro-1B"
        )
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name == model_type:
            return cast(Backend, entry_point.load())
    raise NotFoundError(kind="backend for model type", name=model_type)


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
