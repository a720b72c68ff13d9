"""Finds the backend of a checkpoint directory by the `model_type` in its config.json.

Backends are entry points of the group `illume_loop.backends`: the name is the model type, the object has
`load(path, device) -> UnifiedModel`.
"""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol, cast

from illume_loop.errors import CorruptArtifactError, NotFoundError
from illume_loop.models.protocol import UnifiedModel

ENTRY_POINT_GROUP = "illume_loop.backends"


class Backend(Protocol):
    """What an entry point of the group provides."""

    def load(self, path: Path, device: str) -> UnifiedModel:
        """Load a checkpoint directory."""
        ...


def load_model(path: Path, *, device: str = "cpu") -> UnifiedModel:
    """Load the checkpoint directory `path`.

    Raises NotFoundError when there is none or no backend knows its type, CorruptArtifactError when it cannot be read.
    """
    config = path / "config.json"
    if not config.is_file():
        raise NotFoundError(kind="checkpoint", name=str(path))
    try:
        model_type = json.loads(config.read_text())["model_type"]
        return _backend(model_type).load(path, _device(device))
    except NotFoundError:
        raise
    except Exception as error:  # safetensors, json and transformers each have their own error for a damaged file
        raise CorruptArtifactError(path=str(path), expected="a readable checkpoint", found=str(error)) from error


def _backend(model_type: str) -> Backend:
    if model_type == "illume":
        from illume_loop.models.illume.backend import IllumeBackend

        return IllumeBackend
    for entry_point in entry_points(group=ENTRY_POINT_GROUP):
        if entry_point.name == model_type:
            return cast(Backend, entry_point.load())
    raise NotFoundError(kind="backend for model type", name=model_type)


def _device(name: str) -> str:
    if name != "auto":
        return name
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
