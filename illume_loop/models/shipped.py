"""The bases that ship with the package, the domains of checkpoints, and the words that a model does not know."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from illume_loop.domains.shapes.grammar import vocabulary
from illume_loop.errors import NotFoundError
from illume_loop.models.hub import model_folder
from illume_loop.protocols import HasVocabulary, UnifiedModel

SHIPPED = ("shapes-base", "shapes-instruct")


def shipped_base(name: str = "shapes-base") -> Path:
    """Return the checkpoint directory of a shipped base model. Raises NotFoundError."""
    if name not in SHIPPED:
        raise NotFoundError(kind="shipped model", name=name)
    return Path(str(files("illume_loop.models"))) / "bases" / name


def base_path(base: str) -> Path:
    """Return the directory of a shipped base, of a model directory, or of a hub id; fetch a hub id.

    Raises NotFoundError if it holds no model, and HubError if the hub cannot be reached.
    """
    return model_folder(str(shipped_base(base)) if base in SHIPPED else base, "base model")


SHAPES, TEXT = "shapes", "text"

_TOLD_IN = ("config.json", "recipe.json")


def domain_of_checkpoint(folder: Path) -> str:
    """Return the name of the domain that the checkpoint in `folder` was made for."""
    for name in _TOLD_IN:
        told = _content(folder / name).get("domain")
        if isinstance(told, str) and told:
            return told
    return SHAPES if _knows_words_of_shapes(folder) else TEXT


def _knows_words_of_shapes(folder: Path) -> bool:
    model = _content(folder / "tokenizer.json").get("model")
    if not isinstance(model, dict) or model.get("type") != "WordLevel":
        return False
    return set(vocabulary()) <= set(model.get("vocab", ()))


def _content(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file; return an empty table if the file is missing or damaged.

    Loading the model reports such a file.
    """
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


MOST_TOLD = 8


def unknown_words_message(name: str, model: UnifiedModel, prompts: Sequence[str]) -> str:
    """Return the sentence that names the words of `prompts` that the model does not know, or "" if it knows all.

    `name` is the model's name in the sentence. A model whose tokenizer spells words out knows every word.
    """
    if not isinstance(model, HasVocabulary):
        return ""
    unknown = [words for prompt in prompts if (words := model.unknown_words(prompt))]
    if not unknown:
        return ""
    words = list(dict.fromkeys(word for of_prompt in unknown for word in of_prompt))
    shown = ", ".join(f"'{word}'" for word in words[:MOST_TOLD])
    more = f" and {len(words) - MOST_TOLD} more words" if len(words) > MOST_TOLD else ""
    where = f" (in {len(unknown)} of {len(prompts)} prompts)" if len(prompts) > 1 else ""
    return f"{name} was never taught {shown}{more}{where}, and takes no notice of what that says"
