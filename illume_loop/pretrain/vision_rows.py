"""Stage 1 trains the vision rows of embedding and head alone: those of image ids, and of ids that came with them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from illume_loop.models.illume import IllumeForConditionalGeneration


class VisionRowsOnly:
    """Keeps the text rows of embedding and head bit-identical while the others are trained.

    A gradient mask alone does not do under AdamW: momentum and weight decay move masked rows too. So the rows are
    copied once and put back after each step.
    """

    def __init__(self, model: IllumeForConditionalGeneration) -> None:
        """Freeze the language model but for its two tables; text ids that are new beside it learn too."""
        config = model.config
        num_kept = config.num_text_ids if config.num_inherited_ids is None else config.num_inherited_ids
        model.model.language_model.requires_grad_(False)
        model.lm_head.requires_grad_(False)
        self.tables = [
            nn.Module.get_parameter(table, "weight") for table in (model.get_input_embeddings(), model.lm_head)
        ]
        for table in self.tables:
            table.requires_grad_(True)
        self.frozen = [table.detach()[:num_kept].clone() for table in self.tables]

    def mask_gradients(self) -> None:
        """Let the text rows have gradients of zeros, so that they neither count in the norm by which all are clipped
        nor move, from their first step on, where no optimizer of ours steps (under ZeRO, which keeps copies)."""
        for table, rows in zip(self.tables, self.frozen, strict=True):
            table.register_hook(partial(_masked, len(rows)))

    @torch.no_grad()
    def restore(self) -> None:
        """Put the text rows back."""
        for table, rows in zip(self.tables, self.frozen, strict=True):
            table[: len(rows)] = rows


def _masked(num_rows: int, gradient: Tensor) -> Tensor:
    masked = gradient.clone()
    masked[:num_rows] = 0
    return masked
