"""Linear layers in the layout that is read fastest where a step has few rows, several of one input side by side.

A step of few rows is bound by how fast weights are read from memory. On a CPU, oneDNN's own layout is read once and in
order; elsewhere the layers are merged only. Either is a second copy of the weights. It is made anew when a weight has
changed, which is seen by its version: a change through `.data`, or of a tensor made in inference mode, is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PackedLinear:
    """One linear map (out, in), merged from the weights and biases of one or several."""

    def __init__(
        self, weights: Callable[[], Sequence[Tensor]], biases: Callable[[], Sequence[Tensor]] = lambda: ()
    ) -> None:
        """Both are asked for again at each `refresh`, as modules may get other ones; biases are as many or none."""
        self._weights, self._biases = weights, biases
        self._stamp: object = None
        self._packed: Tensor | None = None
        self._bias: Tensor | None = None
        self._is_reordered = False

    @classmethod
    def of(cls, *linears: nn.Linear) -> PackedLinear:
        """Layers of one input, which all have a bias, or none of them."""
        return cls(
            lambda: [linear.weight for linear in linears],
            lambda: [linear.bias for linear in linears if linear.bias is not None],
        )

    def refresh(self) -> PackedLinear:
        """Lay the weights out if they are new or have changed."""
        weights, biases = self._weights(), self._biases()
        stamp = [(tensor.data_ptr(), _version(tensor), tensor.shape) for tensor in (*weights, *biases)]
        if stamp != self._stamp:
            merged = torch.cat([weight.detach() for weight in weights])
            self._is_reordered = _can_reorder(merged)
            self._packed = torch.ops.mkldnn._reorder_linear_weight(merged) if self._is_reordered else merged
            self._bias = torch.cat([bias.detach() for bias in biases]) if biases else None
            self._stamp = stamp
        return self

    def __call__(self, inputs_NI: Tensor, residual_NO: Tensor | None = None) -> Tensor:
        """Inputs (N, in) to outputs (N, out), added to what stands there where something does."""
        assert self._packed is not None, "refresh comes first"
        outputs: Tensor
        if self._is_reordered:
            outputs = torch.ops.mkldnn._linear_pointwise(inputs_NI, self._packed, self._bias, "none", [], "")
        else:
            outputs = F.linear(inputs_NI, self._packed, self._bias)
        return outputs if residual_NO is None else outputs.add_(residual_NO)


def _version(weight: Tensor) -> int:
    return 0 if weight.is_inference() else weight._version


def _can_reorder(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
