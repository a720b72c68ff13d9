"""Finds the backend of a checkpoint directory by the `model_type` in its config.json.

Backends are entry points of the group `illume_loop.backends`: the name is the model type, the object has
`load(path, device[, dtype, on_progress]) -> UnifiedModel` and a `train`, which is a
`illume_loop.protocols.TrainFunction`. Backends of ours have no `train`: `illume_loop.train` trains their models.
Importing this module imports no backend: a process that loads no model needs no torch.

A `load` that takes `on_progress` is given it. Its model should call it at least every minute while it works: a worker
loses its unit when nothing is reported for as long as a lease lasts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from importlib.metadata import entry_points
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from illume_loop.errors import CorruptArtifactError, IllumeLoopError, NotFoundError, UsageError
from illume_loop.hooks import OnProgress, ignore
from illume_loop.protocols import UnifiedModel

if TYPE_CHECKING:
    pass

ENTRY_POINT_GROUP = "illume_loop.backends"
STORED = "stored"
"""The value of `runtime.weights` that changes nothing."""


class Backend(Protocol):
    """What an entry point of the group provides."""

    def load(self, path: Path, device: str) -> UnifiedModel:
        """Load a checkpoint directory in the precision stored.

        A backend may take `dtype` as a third argument, the name of the precision in which to load instead.
        """
        ...


def load_model(
    path: Path, *, device: str = "cpu", weights: str = STORED, on_progress: OnProgress = ignore
) -> UnifiedModel:
    """Load the checkpoint directory `path`, in the precision stored or that of the setting `runtime.weights`.

    `on_progress` is called after each stage of it, and by the model after each batch of its work.

    Raises NotFoundError when there is none or no backend knows its type, UsageError for a layout that none reads and
    for a precision that its backend does not load, CorruptArtifactError when it cannot be read.
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
    except Exception as error:  # safetensors, json and transformers each have their own error for a damaged file
        raise CorruptArtifactError(path=str(path), expected="a readable checkpoint", found=str(error)) from error


def call_load(
    load: Callable[..., UnifiedModel], path: Path, device: str, on_progress: OnProgress = ignore
) -> UnifiedModel:
    """Call a function that loads a model, with `on_progress` where it takes one."""
    if "on_progress" in signature(load).parameters:
        return load(path, device, on_progress=on_progress)
    return load(path, device)


def backend_of(checkpoint: Path) -> Backend:
    """Return the backend of a checkpoint directory. Raises what `load_model` raises, but for weights."""
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
