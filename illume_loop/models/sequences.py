"""Training rows as ids and labels, and batches of rows, for the sequences of every backend.

A row teaches each id whose label is not IGNORED_LABEL, given all ids before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from illume_loop.errors import UsageError

IGNORED_LABEL = -100


@dataclass(frozen=True, slots=True)
class Sequence1D:
    """One training row; `labels` equals `input_ids` where the loss counts and is -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]

    @classmethod
    def with_prefix(cls, prefix: list[int], learned: list[int]) -> Sequence1D:
        """Build a row that teaches only the ids after the prefix."""
        return cls(prefix + learned, [IGNORED_LABEL] * len(prefix) + learned)


class Sequences(Protocol):
    """A backend's layout of prompts, images and captions as ids of its unified vocabulary.

    The image ids in arguments are codebook ids in [0, codebook_size).
    """

    pad: int

    def draw_prefix(self, prompt: str) -> list[int]:
        """Return the ids before the first image id."""
        ...

    def draw(self, prompt: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """Build a text-to-image row; `prompt_dropped` makes it the unconditional row that guidance uses."""
        ...

    def read(self, answer: str, instruction: str = "") -> Sequence1D:
        """Build an image-to-text row: a caption, or the answer to an instruction."""
        ...

    def correct(self, instruction: str, answer: str, request: str, image_ids: Sequence[int]) -> Sequence1D:
        """Build a row of two turns about one image.

        In the first turn the model answers `instruction` with `answer`, and ends there. In the second turn it answers
        `request` with the image of `image_ids`. Only the model's side is learned.
        """
        ...

    def edit(self, instruction: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """Build an image-to-image row; `prompt_dropped` drops its instruction, as in `draw`.

        Raises UsageError if the backend edits no images.
        """
        ...


def gap_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the text that keeps a text's first word apart from a text before it: a space, or nothing.

    Some tokenizers store a word with the space before it, and see a new word only if that space is there. Others need
    no space.
    """
    word: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    return " " if tokenizer.decode([*word, *word]) == "aa" else ""


def spellings(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """Return the single ids that spell a word, with or without a space before it or a capital.

    Raises UsageError if no single id spells it.
    """
    spelled = [
        tokenizer(before + text, add_special_tokens=False)["input_ids"]
        for before in (" ", "")
        for text in (word.capitalize(), word)
    ]
    found = sorted({ids[0] for ids in spelled if len(ids) == 1} - {tokenizer.unk_token_id})
    if not found:
        raise UsageError(
            f"the model's vocabulary has no word '{word}', so it answers no questions; use a base that was taught them"
        )
    return found


def refuse_images_in(text: str, tokens: Sequence[str]) -> None:
    """Raise UsageError if a text contains one of the tokens, which the model would take for an image."""
    for token in tokens:
        if token in text:
            raise UsageError(f"'{token}' stands for an image to the model; leave it out of '{text}'")


def collate(rows: Sequence[Sequence1D], pad: int) -> dict[str, Tensor]:
    """Return right-padded `input_ids`, `labels` and `attention_mask`, each (B, T)."""
    length = max(len(row.input_ids) for row in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED_LABEL)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for index, row in enumerate(rows):
        size = len(row.input_ids)
        ids[index, :size] = torch.tensor(row.input_ids)
        labels[index, :size] = torch.tensor(row.labels)
        mask[index, :size] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def log_probs_of(logits_BTV: Tensor, targets_BT: Tensor) -> Tensor:
    """Return log p of each target id under the logits at the same position, shape (B, T), in nats."""
    return torch.log_softmax(logits_BTV.float(), dim=-1).gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1)
