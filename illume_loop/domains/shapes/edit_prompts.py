"""Edits as prompts of the loop: a source picture whose objects all differ in shape, and a change of one object.

The target text does not tell where things are, nor the colours that it leaves free. The checker covers these by
comparing the pictures.

Invariants:
- Source and target are compositions of one split.
- The source picture follows from the prompt alone.
- The target is a text that is not true of the source.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from random import Random
from typing import Any, cast

from PIL import Image

from illume_loop.domains.shapes.edits import Edit, check_edit
from illume_loop.domains.shapes.grammar import parse, words
from illume_loop.domains.shapes.render import Placed, draw, place
from illume_loop.domains.shapes.spec import COLORS, SHAPES, Category, Part, Shape, Spec, spec_from_json
from illume_loop.domains.shapes.splits import specs_of, split_of
from illume_loop.errors import PromptOutsideGrammarError
from illume_loop.protocols import Prompt, Split, Verdict

SOURCE_CATEGORIES: tuple[Category, ...] = ("single_object", "two_objects", "colors", "position", "color_attribution")
"""The categories in which an edit of one object gives a composition of the same category. `counting` is not among them:
its objects are alike, and an edit of one of them makes it differ from the others."""

_TEXT = re.compile(r"make the (\w+) (\w+) (?:an? )?(\w+): (.+)")


def edit_prompts(category: Category, split: Split, rng: Random) -> Iterator[Prompt]:
    """Yield every edit of the sources of a category in one split, in random order.

    The prompts are made one by one, because there are thousands.
    """
    changes = [
        (source, index, change)
        for source in specs_of(category, split)
        for index in range(len(source.parts))
        for change in _changes(source, index)
    ]
    rng.shuffle(changes)
    for source, index, part in changes:
        target = replace(source, parts=(*source.parts[:index], part, *source.parts[index + 1 :]))
        if split_of(target) == split:
            thing = _layout(source)[index]
            yield _prompt(source, Edit(thing.color, thing.shape, part.color or thing.color, part.shape), target)


def source_of(prompt: Prompt) -> Image.Image:
    """Return the picture that an edit begins from."""
    return draw(_layout(spec_from_json(cast("dict[str, object]", prompt.spec["source"]))))


def check_prompt(image: Image.Image, prompt: Prompt) -> Verdict:
    """Decide if an image is what the edit makes of its source; see `check_edit`."""
    edit = Edit(**cast("dict[str, Any]", prompt.spec["edit"]))
    return check_edit(source_of(prompt), image, edit)


def split_of_edit(text: str) -> Split | None:
    """Return the split of an edit's text; None if the text is no edit.

    If source and target are of different splits, the first that is not `train` counts.
    """
    read = _TEXT.fullmatch(" ".join(text.lower().split()))
    if read is None:
        return None
    _, shape, new, source_text = read.groups()
    try:
        source = parse(source_text)
        parts = tuple(_changed(part, new) if part.shape == shape else part for part in source.parts)
        target = parse(words(replace(source, parts=parts)))
    except PromptOutsideGrammarError:
        return None
    splits = split_of(source), split_of(target)
    return next((split for split in splits if split != "train"), "train")


def _changes(source: Spec, index: int) -> Iterator[Part]:
    """Yield what one part may become: another shape or, if its colour is not free, another colour."""
    part = source.parts[index]
    shapes, colors = {p.shape for p in source.parts}, {p.color for p in source.parts}
    yield from (replace(part, shape=shape) for shape in SHAPES if shape not in shapes)
    if part.color is not None:
        yield from (replace(part, color=color) for color in COLORS if color not in colors)


def _prompt(source: Spec, edit: Edit, target: Spec) -> Prompt:
    return Prompt(
        text=f"{edit.text}: {words(source)}",
        category=f"edit_{source.category}",
        key=f"edit|{source.key}|{target.key}",
        spec=target.to_json() | {"source": source.to_json(), "edit": asdict(edit)},
        instruction=edit.text,
        target=words(target),
    )


def _layout(source: Spec) -> list[Placed]:
    return place(source, Random(f"shapes/source/{words(source)}"))


def _changed(part: Part, new: str) -> Part:
    return replace(part, color=new) if new in COLORS else replace(part, shape=cast(Shape, new))
