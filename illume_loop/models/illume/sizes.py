"""Named sizes of models: their parts, the choices for composing them, and configurations of the parts.

Each size is a TOML file in the folder `shipped_sizes`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from illume_loop.errors import NoSuchChoiceError
from illume_loop.models.illume.configuration import Distance, Update

SIZES = ("illume-7b", "illume-0.5b")


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices for composing a model from its parts.

    By default, images have the size that the encoder was made for. They have 256 ids as in the paper, or fewer if the
    encoder has fewer patches. `code_distance` and `codebook_update` are explained in quantizer.py.
    """

    image_size: int | None = None
    tokens_per_image: int | None = None
    codebook_size: int = 16_384
    code_dim: int = 32
    code_distance: Distance = "l2"
    codebook_update: Update = "simvq"
    quantizer_layers: int = 4
    detokenizer_width: int = 256


@dataclass(frozen=True, slots=True)
class Size:
    """A named size: hub ids of its parts, choices, and configurations for making the parts with random weights."""

    llm: str
    vision: str
    text_config: dict[str, Any]
    vision_config: dict[str, Any]
    choices: Choices = field(default_factory=Choices)


def named_size(name: str) -> Size:
    """Return a shipped size. Raises NoSuchChoiceError."""
    if name not in SIZES:
        raise NoSuchChoiceError(kind="size", name=name, choices=", ".join(SIZES))
    text = (files("illume_loop.models.illume") / "shipped_sizes" / f"{name}.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return Size(**{**table, "choices": Choices(**table["choices"])})
