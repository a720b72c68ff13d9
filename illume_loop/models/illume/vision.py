"""The vision tokenizer: pixels to features, features (or pixels) to ids, and ids to pixels.

The encoder is any ViT of transformers. Its patch tokens, which come last, are kept; its class and register tokens,
which come first, are dropped.
"""

from __future__ import annotations

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModel

from illume_loop.models.illume.configuration import IllumeConfig, side_of
from illume_loop.models.illume.detokenizer import build_detokenizer
from illume_loop.models.illume.quantizer import SemanticQuantizer


class VisionTokenizer(nn.Module):
    """An encoder, a quantiser and a detokenizer."""

    def __init__(self, config: IllumeConfig, encoder: nn.Module | None = None) -> None:
        """Build the parts; `encoder` has weights, and without it a new encoder of the configuration is made."""
        super().__init__()
        self.image_size = config.image_size
        self.quantises_pixels = config.quantised == "pixels"
        self.pixels_per_token = config.pixels_per_token
        self.slices_per_side = config.slices_per_side
        self.patches_per_slice = (config.patches_per_side // config.slices_per_side) ** 2
        self.grid = config.grid
        self.encoder: Any = AutoModel.from_config(config.vision_config) if encoder is None else encoder
        self.quantizer = SemanticQuantizer(
            config.quantised_width,
            config.code_dim,
            config.codebook_size,
            config.tokens_per_image,
            config.quantizer_layers,
            normalises=not self.quantises_pixels,
            distance=config.code_distance,
            update=config.codebook_update,
        )
        self.detokenizer = build_detokenizer(config)

    def features(self, pixel_values: Tensor, reader: nn.Module | None = None) -> Tensor:
        """Return the layer-normalised features (B, L, H) of pixels (B, 3, S, S).

        The pixels are normalised as the encoder learned it. `reader` is another encoder of the same kind, which is used
        in the place of the tokenizer's.
        """
        encoder = self.encoder if reader is None else reader
        tokens = encoded(encoder, to_slices(pixel_values, self.slices_per_side))
        hidden = from_slices(tokens[:, -self.patches_per_slice :], self.slices_per_side)
        return F.layer_norm(pooled(hidden, self.grid), hidden.shape[-1:])

    def to_quantise(self, pixel_values: Tensor, features_BLH: Tensor | None = None) -> Tensor:
        """Return the quantiser's input (B, L, quantised_width) for pixels as in `features`.

        It is their features, which the caller may pass, or, for a quantiser of pixels, the pixels of each token.
        """
        if self.quantises_pixels:
            side = self.pixels_per_token
            return F.unfold(pixel_values, side, stride=side).transpose(1, 2)
        return self.features(pixel_values) if features_BLH is None else features_BLH

    def encode(self, pixel_values: Tensor, features_BLH: Tensor | None = None) -> Tensor:
        """Return the codebook ids (B, L), in [0, codebook_size), of pixels as in `features`."""
        return self.quantizer.encode(self.to_quantise(pixel_values, features_BLH))

    def decode(self, ids_BL: Tensor) -> Tensor:
        """Return the pixels (B, 3, P, P) in [0, 1] of codebook ids (B, L); P is the configuration's `painted_size`."""
        # Kernels round differently for other batch sizes, and every step of a diffusion enlarges the difference.
        parts = ids_BL.split(1) if self.detokenizer.one_at_a_time else [ids_BL]
        return torch.cat([self.detokenizer(self.quantizer.decode(ids)) for ids in parts])


def to_slices(pixels: Tensor, per_side: int) -> Tensor:
    """Cut pixels (B, C, S, S) into slices (B * per_side^2, C, S / per_side, S / per_side), row by row."""
    batch, channels, side, _ = pixels.shape
    size = side // per_side
    tiles = pixels.reshape(batch, channels, per_side, size, per_side, size).permute(0, 2, 4, 1, 3, 5)
    return tiles.reshape(-1, channels, size, size)


def from_slices(hidden: Tensor, per_side: int) -> Tensor:
    """Join the features (B * per_side^2, l, H) of slices to the features (B, per_side^2 * l, H) of images.

    They are in the raster order of the image.
    """
    inner = math.isqrt(hidden.shape[1])
    width = hidden.shape[2]
    tiles = hidden.reshape(-1, per_side, per_side, inner, inner, width).permute(0, 1, 3, 2, 4, 5)
    return tiles.reshape(-1, (per_side * inner) ** 2, width)


def pooled(hidden_BLH: Tensor, grid: int) -> Tensor:
    """Average the features (B, l, H) of a square grid down to (B, grid^2, H), unless they are as many.

    If the sides do not divide, windows overlap by a patch (27 to 16, say), so that every patch has a share.
    """
    side = math.isqrt(hidden_BLH.shape[1])
    if side == grid:
        return hidden_BLH
    planes = hidden_BLH.transpose(1, 2).unflatten(2, (side, side))
    return F.adaptive_avg_pool2d(planes, grid).flatten(2).transpose(1, 2)


def encoded(encoder: Any, pixel_values: Tensor) -> Tensor:
    """Return all tokens (B, others + patches, H) that an encoder makes of pixels (B, 3, S, S).

    Encoders made for another size interpolate their position embeddings; some of them do so only if they are asked to.
    """
    asked = "interpolate_pos_encoding" in inspect.signature(encoder.forward).parameters
    other = pixel_values.shape[-1] != side_of(encoder.config.image_size)
    arguments = {"interpolate_pos_encoding": True} if asked and other else {}
    tokens: Tensor = encoder(pixel_values=pixel_values, **arguments).last_hidden_state
    return tokens
