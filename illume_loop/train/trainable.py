"""What training needs of a backend, and the checkpoint of any backend that has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from illume_loop.hooks import OnProgress, ignore
from illume_loop.models.registry import load_model
from illume_loop.models.sequences import Sequences


class Trainable(Protocol):
    """A loaded checkpoint that TRL can train.

    TRL computes its losses from `model.base_model(...).last_hidden_state` times the weight (and bias) of
    `model.get_output_embeddings()` and calls no `forward` of ours, so exactly that product has to be the logits. The
    body takes `input_ids`, `attention_mask` and `image_features` (N, L, H) of the N images to be read in the batch.
    """

    model: PreTrainedModel
    sequences: Sequences
    device: torch.device

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The text tokenizer."""
        ...

    @property
    def on_progress(self) -> OnProgress:
        """What is called after each batch that the backend works through."""
        ...

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """What the frozen encoder makes of images, (N, L, H), as the body takes it."""
        ...

    def freeze_vision(self) -> None:
        """Leave only what reads features and ids, and what gives logits, to be trained."""
        ...

    def save(self, path: Path) -> None:
        """Write a complete checkpoint in the layout of the one that was loaded."""
        ...


def load_trainable(base: Path, seed: int, on_progress: OnProgress = ignore, *, every_weight: bool = False) -> Trainable:
    """The checkpoint with its vision frozen, and every source of randomness seeded.

    `on_progress` is called after each stage of the load, and after each batch of images that is encoded.
    Where every weight is to be trained it is held in float32: an optimiser's steps are smaller than what half the
    precision can tell from nothing. Raises what `load_model` raises.
    """
    set_seed(seed)
    # Whoever trains here is a backend that called for it, so what its type loads is one.
    backend = cast(Trainable, load_model(base, device="auto", on_progress=on_progress))
    if every_weight:
        backend.model.float()
    backend.freeze_vision()
    return backend
