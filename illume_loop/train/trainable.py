"""The interface that training needs from a backend, and the loading of a checkpoint that has it."""

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
    `model.get_output_embeddings()`. It calls no `forward` of ours, so the logits must be exactly that product. The
    body takes `input_ids`, `attention_mask` and `image_features` (N, L, H) of the N images that the batch reads.
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
        """The hook that is called after each batch of the backend's work."""
        ...

    def features(self, images: Sequence[Image.Image]) -> Tensor:
        """Return the frozen encoder's features of images, (N, L, H), as the body takes them."""
        ...

    def freeze_vision(self) -> None:
        """Freeze all weights except those that read features and ids and those that give logits."""
        ...

    def save(self, path: Path) -> None:
        """Write a complete checkpoint in the layout of the one that was loaded."""
        ...


def load_trainable(base: Path, seed: int, on_progress: OnProgress = ignore, *, every_weight: bool = False) -> Trainable:
    """Load the checkpoint, freeze its vision and seed every source of randomness.

    `on_progress` is called after each stage of the load, and after each batch of images that is encoded. With
    `every_weight` the weights are held in float32, because an optimiser's steps would be lost to rounding in half
    precision. Raises what `load_model` raises.
    """
    set_seed(seed)
    # Only backends whose models our trainers train get here, so the loaded model is a Trainable.
    backend = cast(Trainable, load_model(base, device="auto", on_progress=on_progress))
    if every_weight:
        backend.model.float()
    backend.freeze_vision()
    return backend
