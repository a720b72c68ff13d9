"""The domain that a checkpoint was made for, as its files tell it.

A checkpoint tells its domain by the key `domain` in config.json or recipe.json. One whose vocabulary is words, with all
words of the shapes prompts among them, is of the shapes world: the shipped bases, and what was trained from them. Every
other one takes any prompt, so its domain is `text`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from illume_loop.domains.shapes.grammar import vocabulary

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
    """Return what a JSON file holds; nothing where it is missing or damaged, which loading the model will tell."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
