"""The base models that ship in the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from illume_loop.errors import NotFoundError

SHIPPED = ("shapes-base", "shapes-instruct")


def shipped_base(name: str = "shapes-base") -> Path:
    """The checkpoint directory of a shipped base model. Raises NotFoundError."""
    if name not in SHIPPED:
        raise NotFoundError(kind="shipped model", name=name)
    return Path(str(files("illume_loop.models"))) / "bases" / name
