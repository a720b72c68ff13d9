"""Linear layers in the layout that is read fastest in steps of few rows, several layers of one input merged.

The speed of a step of few rows is bound by how fast its weights are read from memory. On a CPU, oneDNN's own layout is
read once and in order. Elsewhere the layers are merged only. Both are a second copy of the weights. The copy is made
anew when a weight has changed. The weight's version shows the change; a change through `.data`, or of a tensor made in
inference mode, is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CONVERTED_ROWS = 8192
"""Rows of a text head that are held in float32 at a time."""


class PackedLinear:
    """A linear map (out, in), merged from the weights and biases of one or several layers."""

    def __init__(
        self,
        weights: Callable[[], Sequence[Tensor]],
        biases: Callable[[], Sequence[Tensor]] = lambda: (),
        dtype: torch.dtype | None = None,
    ) -> None:
        """Set the functions that return the weights and the biases; there are as many biases as weights, or none.

        Each `refresh` calls both again, because modules may get other weights. `dtype` is the precision in which the
        copy is kept and multiplied; None takes that of the weights.
        """
        self._weights, self._biases, self._dtype = weights, biases, dtype
        self._stamp: object = None
        self._packed: Tensor | None = None
        self._bias: Tensor | None = None
        self._is_reordered = False

    @classmethod
    def of(cls, *linears: nn.Linear, dtype: torch.dtype | None = None) -> PackedLinear:
        """Merge layers of one input, which all have a bias, or none of them."""
        return cls(
            lambda: [linear.weight for linear in linears],
            lambda: [linear.bias for linear in linears if linear.bias is not None],
            dtype,
        )

    def refresh(self) -> PackedLinear:
        """Lay the weights out if they are new or have changed."""
        weights, biases = self._weights(), self._biases()
        stamp = [(tensor.data_ptr(), _version(tensor), tensor.shape) for tensor in (*weights, *biases)]
        if stamp != self._stamp:
            merged = torch.cat([weight.detach().to(self._dtype or weight.dtype) for weight in weights])
            self._is_reordered = _can_reorder(merged)
            self._packed = torch.ops.mkldnn._reorder_linear_weight(merged) if self._is_reordered else merged
            self._bias = torch.cat([bias.detach().to(merged.dtype) for bias in biases]) if biases else None
            self._stamp = stamp
        return self

    def __call__(self, inputs_NI: Tensor, residual_NO: Tensor | None = None) -> Tensor:
        """Map inputs (N, in) to outputs (N, out), and add `residual_NO` if there is one."""
        assert self._packed is not None, "refresh comes first"
        outputs: Tensor
        if self._dtype is not None:
            inputs_NI = inputs_NI.to(self._dtype)
        if self._is_reordered:
            outputs = torch.ops.mkldnn._linear_pointwise(inputs_NI, self._packed, self._bias, "none", [], "")
        else:
            outputs = F.linear(inputs_NI, self._packed, self._bias)
        return outputs if residual_NO is None else outputs.add_(residual_NO)


def float32_logits(hidden_NH: Tensor, head_VH: Tensor) -> Tensor:
    """Return the float32 logits (N, V) of hidden states, even if both are kept in a lower precision.

    Logits are in the tens, so bfloat16 would round each by up to an eighth. A head in a lower precision is converted
    some rows at a time, which takes no second copy of the head.
    """
    if head_VH.dtype == torch.float32:
        return F.linear(hidden_NH, head_VH)
    logits = hidden_NH.new_empty((len(hidden_NH), len(head_VH)), dtype=torch.float32)
    hidden = hidden_NH.float()
    for columns, rows in zip(logits.split(CONVERTED_ROWS, dim=1), head_VH.split(CONVERTED_ROWS), strict=True):
        columns.copy_(F.linear(hidden, rows.float()))
    return logits


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def _can_reorder(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
