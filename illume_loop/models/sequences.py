"""Training rows as ids and labels, and batches of them: what the sequences of every backend are made of.

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
    """One training row: `labels` equals `input_ids` where the loss counts and -100 elsewhere."""

    input_ids: list[int]
    labels: list[int]

    @classmethod
    def learned_after(cls, prefix: list[int], learned: list[int]) -> Sequence1D:
        """A row of which only what follows the prefix is learned."""
        return cls(prefix + learned, [IGNORED_LABEL] * len(prefix) + learned)


class Sequences(Protocol):
    """How a backend lays prompts, images and captions out as ids of its unified vocabulary.

    Image ids given are codebook ids in [0, codebook_size).
    """

    pad: int

    def draw_prefix(self, prompt: str) -> list[int]:
        """What stands before the first image id."""
        ...

    def draw(self, prompt: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """A text-to-image row; with its prompt dropped, the unconditional one that guidance uses beside it."""
        ...

    def read(self, answer: str, instruction: str = "") -> Sequence1D:
        """An image-to-text row: a caption, or the answer to an instruction."""
        ...

    def correct(self, instruction: str, answer: str, image_ids: Sequence[int]) -> Sequence1D:
        """A row of two turns: an image is assessed, and then drawn as it should have been."""
        ...

    def edit(self, instruction: str, image_ids: Sequence[int], *, prompt_dropped: bool = False) -> Sequence1D:
        """An image-to-image row; its instruction may be dropped as the prompt of a drawn one.

        Raises UsageError where the backend edits no images.
        """
        ...


def gap_of(tokenizer: PreTrainedTokenizerBase) -> str:
    """What text begins with that stands behind other text, so that their words stay apart: a space, or nothing.

    Tokenizers whose words hold the space before them say where one begins only if they are given it; others know.
    """
    word: list[int] = tokenizer("a", add_special_tokens=False)["input_ids"]
    return " " if tokenizer.decode([*word, *word]) == "aa" else ""


def spellings(tokenizer: PreTrainedTokenizerBase, word: str) -> list[int]:
    """The ids that say a word, with and without a space before it, and with a capital.

    Raises UsageError where no single id does.
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
    """Raises UsageError for a text that would become an image in the middle of it."""
    for token in tokens:
        if token in text:
            raise UsageError(f"'{token}' stands for an image to the model; leave it out of '{text}'")


def collate(rows: Sequence[Sequence1D], pad: int) -> dict[str, Tensor]:
    """Right-padded `input_ids`, `labels` and `attention_mask`, each (B, T)."""
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
    """log p of each target id under the logits at the same position, shape (B, T), nats."""
    return torch.log_softmax(logits_BTV.float(), dim=-1).gather(-1, targets_BT.unsqueeze(-1)).squeeze(-1)
