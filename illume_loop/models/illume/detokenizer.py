"""The convolutional detokenizer: pixels from reconstructed features.

The paper paints pixels with a diffusion model; this one is the fast stand-in for small canvases. It never sees the
encoder's exact features, only what survives quantisation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ConvDetokenizer(nn.Module):
    """Features (B, L, H) to pixels (B, 3, S, S) in [0, 1]."""

    def __init__(self, feature_dim: int, grid: int, patch_size: int, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.stem = nn.Conv2d(feature_dim, width, 1)
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


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        change: Tensor = self.second(F.gelu(self.first(self.norm(hidden))))
        return hidden + change
