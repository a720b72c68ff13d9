"""Gumbel noise that depends on the row's seed and the position only.

A counter-based hash takes the place of a generator. So a row draws the same noise in any batch, any order and on any
device, and nothing has to be kept between steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def gumbel(seeds_B: Tensor, position: int | Tensor, num_ids: int) -> Tensor:
    """Return standard Gumbel noise (B, num_ids), float32, for int64 `seeds_B` and a position in the image.

    The position may be a tensor of one element, so that a graph does not fix it.
    """
    ids = torch.arange(1, num_ids + 1, device=seeds_B.device)
    turned = (position + 1) * signed(_GOLDEN) if isinstance(position, Tensor) else signed(_GOLDEN * (position + 1))
    rows_B1 = _mix(seeds_B + turned).unsqueeze(1)
    bits = _shift_right(_mix(rows_B1 + ids * signed(_GOLDEN)), 41)  # 23 bits: exact in float32
    uniform = (bits.float() + 0.5) * 2.0**-23
    return -torch.log(-torch.log(uniform))


def signed(value: int) -> int:
    """Return an integer modulo 2^64 as the signed integer that torch can hold."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _mix(value: Tensor) -> Tensor:
    """Apply the finaliser of splitmix64 (Steele, Lea and Flood 2014), in wrapping arithmetic."""
    value = (value ^ _shift_right(value, 30)) * signed(_MULTIPLIERS[0])
    value = (value ^ _shift_right(value, 27)) * signed(_MULTIPLIERS[1])
    return value ^ _shift_right(value, 31)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Shift the bits logically; torch's own shift keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)
