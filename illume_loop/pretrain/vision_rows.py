"""The training of only the vision rows of embedding and head, in stage 1: the rows of image ids and of new text ids."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from illume_loop.models.illume import IllumeForConditionalGeneration


class VisionRowsOnly:
    """The guard that keeps the text rows of embedding and head bit-identical while the other rows are trained.

    A gradient mask alone is not enough under AdamW, because momentum and weight decay move masked rows too. So the rows
    are copied once and put back after each step.
    """

    def __init__(self, model: IllumeForConditionalGeneration) -> None:
        """Freeze the language model except its two tables.

        The rows of text ids that did not come with the language model are trained too.
        """
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
        """Set the gradients of the text rows to zero.

        So the text rows do not count in the norm that gradients are clipped by. Under ZeRO, which updates copies that
        `restore` does not reach, the mask also keeps them from moving.
        """
        for table, rows in zip(self.tables, self.frozen, strict=True):
            table.register_hook(partial(_masked, len(rows)))

    @torch.no_grad()
    def restore(self) -> None:
        """Put the text rows back as they were."""
        for table, rows in zip(self.tables, self.frozen, strict=True):
            table[: len(rows)] = rows


def _masked(num_rows: int, gradient: Tensor) -> Tensor:
    masked = gradient.clone()
    masked[:num_rows] = 0
    return masked
