"""A prompt set: prompts by split, in a file of JSON lines that `prompts import` writes and a run names.

Invariants:
- A key (keys.py) is in one split only. If two splits ask for the same picture, `heldout` keeps it before `probe`, and
  `probe` before `train`. The other split loses its prompt, and the import lists it.
- The file is written whole or not at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from illume_loop.domains.text.detecting import detected
from illume_loop.domains.text.formats import Source, read_prompts
from illume_loop.errors import PromptFileError
from illume_loop.files import write_atomically
from illume_loop.protocols import Prompt, Split

SPLITS: tuple[Split, ...] = ("heldout", "probe", "train")
"""The splits in the order in which they keep a prompt that several of them have."""


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts by split, each text once."""

    of_split: Mapping[Split, tuple[Prompt, ...]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.of_split.values())

    def counts(self) -> list[tuple[Split, str, int, int]]:
        """Return (split, category, prompts, prompts with a spec) for each category of each split."""
        found = []
        for split in SPLITS:
            prompts = self.of_split.get(split, ())
            of_category = Counter(prompt.category for prompt in prompts)
            with_spec = Counter(prompt.category for prompt in prompts if prompt.spec)
            found += [(split, name, of_category[name], with_spec[name]) for name in of_category]
        return found


@dataclass(frozen=True, slots=True)
class LostPrompt:
    """A prompt that a split lost, because a prompt of a split that goes before asks for the same picture."""

    text: str
    split: Split
    other_text: str
    other_split: Split


@dataclass(frozen=True, slots=True)
class Import:
    """The result of an import into a set; `num_known` texts were there already, in the same split."""

    prompts: PromptSet
    num_added: int
    num_known: int
    kept_out: Sequence[LostPrompt]


def merged(before: PromptSet, split: Split, new: Iterable[Prompt]) -> Import:
    """Add the `new` prompts of a split to the set `before`; return the result.

    A text that the split has already is left as it is.
    """
    of_split = {name: dict(_by_text(before.of_split.get(name, ()))) for name in SPLITS}
    known = len(of_split[split])
    num_new = 0
    for prompt in new:
        num_new += 1
        of_split[split].setdefault(prompt.text, prompt)
    num_added = len(of_split[split]) - known
    keepers: dict[str, tuple[Split, str]] = {}
    kept_out = []
    for name in SPLITS:
        for prompt in list(of_split[name].values()):
            keeper, text = keepers.setdefault(prompt.key, (name, prompt.text))
            if keeper != name:
                kept_out.append(LostPrompt(prompt.text, name, text, keeper))
                del of_split[name][prompt.text]
    lost_new = sum(out.split == split for out in kept_out)
    prompts = PromptSet({name: tuple(found.values()) for name, found in of_split.items() if found})
    return Import(prompts, num_added - lost_new, num_new - num_added, kept_out)


def read_prompt_set(path: Path) -> PromptSet:
    """Return the set in a file. Raises PromptFileError."""
    if not path.exists():
        raise PromptFileError(
            place=path, reason="it is not there; make it with `illume-loop prompts import FILE -o SET`"
        )
    if (kind := detected(path)) not in ("jsonl", "text"):
        command = f"illume-loop prompts import {path} --split train -o prompts.jsonl"
        raise PromptFileError(place=path, reason=f"it is no prompt set but {kind}; make a set of it with `{command}`")
    found: dict[Split, list[Prompt]] = {}
    for split, prompt in read_prompts(Source(path, "jsonl"), needs_split=True):
        assert split is not None, "a set's lines have one"
        found.setdefault(split, []).append(prompt)
    result = PromptSet()
    for split, prompts in found.items():
        step = merged(result, split, prompts)
        if step.kept_out:
            out = step.kept_out[0]
            reason = f"'{out.text}' ({out.split}) and '{out.other_text}' ({out.other_split}) are of two splits"
            raise PromptFileError(place=path, reason=reason)
        result = step.prompts
    return result


def write_prompt_set(path: Path, prompts: PromptSet) -> None:
    """Write a set to a file, whole or not at all."""
    lines = [
        json.dumps(_line(split, prompt), ensure_ascii=False) + "\n"
        for split in SPLITS
        for prompt in prompts.of_split.get(split, ())
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(lines).encode())


def _line(split: Split, prompt: Prompt) -> dict[str, object]:
    line: dict[str, object] = {"split": split, "prompt": prompt.text, "category": prompt.category}
    return line | ({"spec": prompt.spec} if prompt.spec else {})


def _by_text(prompts: Iterable[Prompt]) -> Iterable[tuple[str, Prompt]]:
    return ((prompt.text, prompt) for prompt in prompts)
