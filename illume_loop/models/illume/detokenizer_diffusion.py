"""The diffusion detokenizer: pixels from reconstructed features by a UNet and a scheduler of diffusers.

A convolutional detokenizer makes a draft, and a UNet learns what is missing from it. As in ILLUME+ (arXiv 2504.01934,
section 3.3), the known channels stand beside the noisy image, on the grid that they came from, and guidance leads away
from an image of which nothing is known. Neither paper prints a small model. The draft, the pixels folded into channels,
and flow matching on the clean image are choices of ours.

Invariants:

- The painted pixels follow from the features alone: every image begins with the same noise, which lies in the
  checkpoint, and the sampler adds none.
- They are the same to the last bit if images are painted one by one, as `VisionTokenizer.decode` does.
"""

from __future__ import annotations

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from illume_loop.models.illume.configuration import NORM_GROUPS, IllumeConfig
from illume_loop.models.illume.detokenizer_conv import ConvDetokenizer

NOISE_LEVELS = 1000
"""The UNet gets the share of noise as a number from 0 to this, as the schedulers of diffusers count it."""
FEATURE_DROPOUT = 0.1
"""The share of training images that are learned without features; guidance leads away from these."""


class DiffusionDetokenizer(nn.Module):
    """A UNet that paints features (B, L, H) as pixels (B, 3, P, P) in [0, 1].

    See `illume_loop.models.illume.detokenizer.Detokenizer`. `steps` and `guidance` may be set to other values than
    those of the configuration.
    """

    one_at_a_time = True
    noise: Tensor

    def __init__(self, config: IllumeConfig) -> None:
        super().__init__()
        self.grid, self.patch_size = config.grid, config.detokenizer_patch
        self.steps, self.guidance = config.detokenizer_steps, config.detokenizer_guidance
        channels = tuple(config.detokenizer_channels)
        cells, folded = config.painted_size // self.patch_size, 3 * self.patch_size**2
        self.draft = ConvDetokenizer(config)
        self.condition = nn.Conv2d(config.quantised_width, channels[0], 1)
        self.unet = UNet2DModel(
            sample_size=cells,
            in_channels=2 * folded + channels[0],
            out_channels=folded,
            block_out_channels=channels,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * len(channels),
            up_block_types=("UpBlock2D",) * len(channels),
            norm_num_groups=NORM_GROUPS,
        )
        # An untrained UNet adds nothing to the draft.
        nn.init.zeros_(self.unet.conv_out.weight)
        nn.init.zeros_(self.unet.conv_out.bias)
        self.register_buffer("noise", torch.randn(1, folded, cells, cells))

    def forward(self, features_BLH: Tensor) -> Tensor:
        """Paint a batch."""
        known = self.known(features_BLH)
        scheduler = FlowMatchEulerDiscreteScheduler(NOISE_LEVELS)
        shares = [1 - done / self.steps for done in range(self.steps)]
        scheduler.set_timesteps(sigmas=shares, device=features_BLH.device)
        image = self.noise.expand(len(features_BLH), -1, -1, -1)
        for share, level in zip(shares, scheduler.timesteps, strict=True):
            velocity = (image - self._guided(image, level, known)) / share
            image = scheduler.step(velocity, level, image).prev_sample
        return F.pixel_shuffle(image / 2 + 0.5, self.patch_size).clamp(0, 1)

    def known(self, features_BLH: Tensor) -> Tensor:
        """Return what is known of images, as channels of the UNet's cells: their folded drafts, and their features.

        Zeros stand for an image of which nothing is known; the draft of a real one is never grey all over.
        """
        cells = self.noise.shape[-1]
        with torch.no_grad():  # the draft was trained before the UNet
            draft = self.draft(features_BLH) * 2 - 1
        folded = F.pixel_unshuffle(F.interpolate(draft, size=cells * self.patch_size, mode="nearest"), self.patch_size)
        grid = features_BLH.transpose(1, 2).reshape(len(features_BLH), -1, self.grid, self.grid)
        return torch.cat([folded, F.interpolate(self.condition(grid), size=cells, mode="nearest")], dim=1)

    def predict(self, noisy: Tensor, levels_B: Tensor, known: Tensor) -> Tensor:
        """Predict the clean images, folded and in [-1, 1], from noisy ones and what is known of them.

        `levels_B` are the shares of noise times NOISE_LEVELS.
        """
        missing: Tensor = self.unet(torch.cat([noisy, known], dim=1), levels_B).sample
        return known[:, : noisy.shape[1]] + missing

    def loss(self, features_BLH: Tensor, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Return the flow-matching loss of the predicted clean images.

        `generator` draws the noise, its share and the dropout. The squared error counts the same for every share of
        noise. Of the usual weights, this one cares the most for much noise, where a sampler of few steps spends most of
        them. The draft does not learn.
        """
        clean = F.pixel_unshuffle(pixels * 2 - 1, self.patch_size)
        share_B111 = torch.rand(len(clean), 1, 1, 1, generator=generator).to(clean)
        kept_B111 = (torch.rand(len(clean), 1, 1, 1, generator=generator) >= FEATURE_DROPOUT).to(clean)
        noisy = torch.lerp(clean, torch.randn(clean.shape, generator=generator).to(clean), share_B111)
        predicted = self.predict(noisy, share_B111.flatten() * NOISE_LEVELS, self.known(features_BLH) * kept_B111)
        return F.mse_loss(predicted, clean)

    def _guided(self, noisy: Tensor, level: Tensor, known: Tensor) -> Tensor:
        levels_B = level.expand(len(noisy))
        clean = self.predict(noisy, levels_B, known)
        if self.guidance != 1.0:
            clean = torch.lerp(self.predict(noisy, levels_B, torch.zeros_like(known)), clean, self.guidance)
        return clean.clamp(-1, 1)
