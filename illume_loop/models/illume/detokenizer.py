"""The protocol and the builder of detokenizers, which paint pixels from reconstructed features.

The paper paints pixels with a diffusion model (detokenizer_diffusion.py). The convolutional detokenizer
(detokenizer_conv.py) is the fast stand-in for small canvases. Both see only the features that survive quantisation, not
the encoder's exact ones.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from illume_loop.models.illume.configuration import IllumeConfig
from illume_loop.models.illume.detokenizer_conv import ConvDetokenizer


class Detokenizer(Protocol):
    """A network that paints, and the loss by which it learns to."""

    one_at_a_time: bool
    """True if each image must be painted by itself to be the same to the last bit beside any others."""

    def __call__(self, features_BLH: Tensor) -> Tensor:
        """Paint features (B, L, H) as pixels (B, 3, P, P) in [0, 1]; P is the configuration's `painted_size`."""
        ...

    def loss(self, features_BLH: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the training loss of features and the pixels (B, 3, P, P) in [0, 1] that they came from.

        `generator`, on the CPU, draws all that is random, so that it is the same on every device.
        """
        ...


def build_detokenizer(config: IllumeConfig) -> nn.Module:
    """Build the untrained detokenizer that a configuration asks for; it is a `Detokenizer`."""
    if config.detokenizer == "diffusion":
        # The import of diffusers takes seconds, for which the convolutional detokenizer need not wait.
        from illume_loop.models.illume.detokenizer_diffusion import DiffusionDetokenizer

        return DiffusionDetokenizer(config)
    return ConvDetokenizer(config)
