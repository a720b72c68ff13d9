"""Detokenizers: pixels from reconstructed features. This file has the protocol and the builder.

The paper paints pixels with a diffusion model (detokenizer_diffusion.py); the convolutional one (detokenizer_conv.py)
is the fast stand-in for small canvases. Neither sees the encoder's exact features, only what survives quantisation.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from illume_loop.models.illume.configuration import IllumeConfig
from illume_loop.models.illume.detokenizer_conv import ConvDetokenizer


class Detokenizer(Protocol):
    """What paints, and how it learns to."""

    paints_singly: bool
    """Whether each image has to be painted by itself, to be the same to the last bit beside any others."""

    def __call__(self, features_BLH: Tensor) -> Tensor:
        """Features (B, L, H) to pixels (B, 3, P, P) in [0, 1]; P is the configuration's `painted_size`."""
        ...

    def loss(self, features_BLH: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """What is minimised, of features and the pixels (B, 3, P, P) in [0, 1] that they came from.

        What is random is drawn from `generator`, of the CPU, so that it is the same on every device.
        """
        ...


def build_detokenizer(config: IllumeConfig) -> nn.Module:
    """The detokenizer that a configuration asks for, untrained; it is a `Detokenizer`."""
    if config.detokenizer == "diffusion":
        # Imported here: importing diffusers takes seconds, and who paints without it should not wait for it.
        from illume_loop.models.illume.detokenizer_diffusion import DiffusionDetokenizer

        return DiffusionDetokenizer(config)
    return ConvDetokenizer(config)
