"""The base models that ship in the package, and where a run's base is found, whichever way it is named."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from illume_loop.errors import NotFoundError
from illume_loop.models.hub import model_folder

SHIPPED = ("shapes-base", "shapes-instruct")


def shipped_base(name: str = "shapes-base") -> Path:
    """The checkpoint directory of a shipped base model. Raises NotFoundError."""
    if name not in SHIPPED:
        raise NotFoundError(kind="shipped model", name=name)
    return Path(str(files("illume_loop.models"))) / "bases" / name


def base_path(base: str) -> Path:
    """The directory of a shipped base, of a model directory, or of a hub id, which is fetched.

    Raises NotFoundError, and HubError where the hub cannot be reached.
    """
    return model_folder(str(shipped_base(base)) if base in SHIPPED else base, "base model")
