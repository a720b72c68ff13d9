"""Single steps of a Llama or Qwen2 decoder, without transformers' layers around its matrices.

The matrices are kept a second time, merged (query, key and value; gate and up; see `engine.matrices`). This takes the
decoder's weights in memory once more.

Invariants:

- Hidden states are those of the body's own forward, up to rounding.
- A body that differs in anything (an adapter, another bias, activation or rotary scheme, a window of attention) is
  refused by `can_step`.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, LlamaModel, Qwen2Model

from illume_loop.engine.cache import as_argument
from illume_loop.engine.matrices import PackedLinear
from illume_loop.engine.prefixes import PrefixBatch

_STATIC_ROPES = ("default", "linear", "llama3")
"""Rotary schemes whose angles do not depend on the length of the sequence."""


def can_step(body: Any) -> bool:
    """Return whether `body` is a plain Llama decoder, or one of Qwen2, whose queries, keys and values have a bias."""
    if type(body) not in (LlamaModel, Qwen2Model) or getattr(body, "has_sliding_layers", False):
        return False
    layers: Any = body.layers
    others = [linear for layer in layers for linear in (layer.self_attn.o_proj, *_gates(layer), layer.mlp.down_proj)]
    of_attention = [linear for layer in layers for linear in _attention(layer)]
    plain = all(type(linear) is nn.Linear for linear in (*others, *of_attention))
    return (
        plain
        and all(linear.bias is None for linear in others)
        and len({linear.bias is None for linear in of_attention}) == 1
        and body.config.hidden_act == "silu"
        and body.rotary_emb.rope_type in _STATIC_ROPES
    )


class _Layer:
    """The parts of one layer that a step needs."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.attention_norm, self.mlp_norm = layer.input_layernorm, layer.post_attention_layernorm
        self.query_key_value = PackedLinear.of(*_attention(layer))
        self.output = PackedLinear.of(attention.o_proj)
        self.gate_up = PackedLinear.of(*_gates(layer))
        self.down = PackedLinear.of(mlp.down_proj)

    def refresh(self) -> None:
        """Take over changed weights."""
        for linear in (self.query_key_value, self.output, self.gate_up, self.down):
            linear.refresh()


class LlamaSteps:
    """A decoder of rows, position by position behind their prefixes, with slots for keys and values made beforehand."""

    def __init__(self, body: Any, batch: PrefixBatch, num_steps: int, *, stretch: int = 1) -> None:
        """Send the prefixes through the body and make room for `num_steps` more positions.

        Attention goes over the filled slots, rounded up to a multiple of `stretch`: within a stretch all shapes stay
        the same, as a CUDA graph needs it. Afterwards `hidden` (R, H) is the state after the prefixes.
        """
        config = body.config
        self._body, self._stretch = body, stretch
        self._layers = _layers_of(body)
        self._head_dim: int = body.layers[0].self_attn.head_dim
        self._heads: int = config.num_attention_heads
        self._kv_heads: int = config.num_key_value_heads
        self._width = width = batch.mask.shape[1]
        capacity = -(-(width + num_steps) // stretch) * stretch
        num_rows = len(batch.row_of)
        # Keys and values lie side by side, so that those of a position are written at once.
        shape = (len(self._layers), num_rows, 2 * self._kv_heads, capacity, self._head_dim)
        self._slots = batch.embeds.new_zeros(shape)
        self.hidden = self._prefill(batch)
        self._mask: Tensor | None = None
        if stretch > 1 or not bool(batch.mask.all()):
            self._mask = batch.embeds.new_full((num_rows, 1, 1, capacity), torch.finfo(batch.embeds.dtype).min)
            filled = batch.mask[batch.row_of].bool()[:, None, None]
            self._mask[..., :width].masked_fill_(filled, 0.0)
        self._slot = torch.tensor([width], device=batch.mask.device)
        self._positions = batch.mask.sum(1)[batch.row_of]
        self._cos, self._sin = _rotary_table(body, batch, capacity)

    def _prefill(self, batch: PrefixBatch) -> Tensor:
        cache = DynamicCache()
        hidden: Tensor = self._body(
            inputs_embeds=batch.embeds,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=True,
            **as_argument(self._body, cache),
        ).last_hidden_state
        width = batch.mask.shape[1]
        layers: list[Any] = cache.layers
        for slots, layer in zip(self._slots, layers, strict=True):
            slots[:, : self._kv_heads, :width] = layer.keys[batch.row_of]
            slots[:, self._kv_heads :, :width] = layer.values[batch.row_of]
        return hidden[batch.row_of, -1]

    def extents(self, num_steps: int) -> list[int]:
        """Return how many slots attention goes over, for each of the first `num_steps` steps."""
        return [-(-(self._width + step + 1) // self._stretch) * self._stretch for step in range(num_steps)]

    def advance(self, embeds_RH: Tensor, extent: int) -> Tensor:
        """Return the hidden states (R, H) after one more position; steps of one extent run the same kernels."""
        num_rows = len(embeds_RH)
        cos, sin = self._cos[self._positions].unsqueeze(1), self._sin[self._positions].unsqueeze(1)
        if self._mask is not None:
            self._mask.index_fill_(3, self._slot, 0.0)
        mask = None if self._mask is None else self._mask[..., :extent]
        hidden, eps = embeds_RH, self._body.config.rms_norm_eps
        rotated, half = self._heads + self._kv_heads, self._head_dim // 2
        for layer, slots in zip(self._layers, self._slots, strict=True):
            normed = F.rms_norm(hidden, hidden.shape[-1:], layer.attention_norm.weight, eps)
            heads = layer.query_key_value(normed).view(num_rows, -1, self._head_dim)
            turning = heads[:, :rotated]
            turned = torch.addcmul(turning * cos, turning.roll(half, -1), sin)
            heads[:, self._heads : rotated] = turned[:, self._heads :]
            slots.index_copy_(2, self._slot, heads[:, self._heads :].unsqueeze(2))
            # The queries that share a key stand side by side, like queries of several positions.
            attended = F.scaled_dot_product_attention(
                turned[:, : self._heads].view(num_rows, self._kv_heads, -1, self._head_dim),
                slots[:, : self._kv_heads, :extent],
                slots[:, self._kv_heads :, :extent],
                attn_mask=mask,
            )
            hidden = layer.output(attended.reshape(num_rows, -1), hidden)
            normed = F.rms_norm(hidden, hidden.shape[-1:], layer.mlp_norm.weight, eps)
            gate, up = layer.gate_up(normed).chunk(2, dim=-1)
            hidden = layer.down(F.silu(gate).mul_(up), hidden)
        self._slot.add_(1)
        self._positions.add_(1)
        return F.rms_norm(hidden, hidden.shape[-1:], self._body.norm.weight, eps)


def _attention(layer: Any) -> tuple[Any, Any, Any]:
    return layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj


def _gates(layer: Any) -> tuple[Any, Any]:
    return layer.mlp.gate_proj, layer.mlp.up_proj


_LAYERS: WeakKeyDictionary[nn.Module, list[_Layer]] = WeakKeyDictionary()


def _layers_of(body: Any) -> list[_Layer]:
    """Return the layers of a body with its present weights."""
    layers = _LAYERS.setdefault(body, [])
    if len(layers) != len(body.layers):
        layers[:] = [_Layer(layer) for layer in body.layers]
    for layer in layers:
        layer.refresh()
    return layers


def _rotary_table(body: Any, batch: PrefixBatch, num_positions: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, each (positions, head_dim).

    The first half of the sines is negative, because it meets the second half of a rolled vector.
    """
    positions = torch.arange(num_positions, device=batch.mask.device).unsqueeze(0)
    cos, sin = (table[0] for table in body.rotary_emb(batch.embeds, positions))
    half = sin.shape[-1] // 2
    return cos, torch.cat([-sin[:, :half], sin[:, half:]], dim=-1)
