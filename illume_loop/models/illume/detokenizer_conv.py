"""The convolutional detokenizer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from illume_loop.models.illume.configuration import NORM_GROUPS, IllumeConfig


class ConvDetokenizer(nn.Module):
    """A convolutional network that paints features (B, L, H) as pixels (B, 3, P, P) in [0, 1].

    P is the side of the grid in pixels.
    """

    one_at_a_time = False

    def __init__(self, config: IllumeConfig) -> None:
        super().__init__()
        self.grid, width, patch_size = config.grid, config.detokenizer_width, config.pixels_per_token
        self.stem = nn.Conv2d(config.quantised_width, width, 1)
        self.blocks = nn.ModuleList(_ResidualBlock(width) for _ in range(2))
        self.unfold = nn.Conv2d(width, 3 * patch_size**2, 1)
        self.shuffle = nn.PixelShuffle(patch_size)
        self.refine = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.GELU(), nn.Conv2d(24, 3, 3, padding=1))

    def forward(self, features_BLH: Tensor) -> Tensor:
        """Paint a batch."""
        hidden = features_BLH.transpose(1, 2).reshape(len(features_BLH), -1, self.grid, self.grid)
        hidden = self.stem(hidden)
        for block in self.blocks:
            hidden = block(hidden)
        rough = self.shuffle(self.unfold(hidden))
        return torch.sigmoid(rough + self.refine(rough))

    def loss(self, features_BLH: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the distance of the painted pixels; nothing is random.

        The absolute part of the distance keeps edges sharp.
        """
        painted = self(features_BLH)
        return F.l1_loss(painted, pixels) + 2 * F.mse_loss(painted, pixels)


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(NORM_GROUPS, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.second(F.gelu(self.first(self.norm(hidden))))
        return hidden + change
