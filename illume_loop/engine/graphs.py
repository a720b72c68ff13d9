"""Turns of the drawing loop one after the other; on a GPU as CUDA graphs, one for each stretch of slots.

A step of a decoder is hundreds of small kernels, which a GPU does faster than a host can start them. A graph starts
them all at once. It needs the same shapes each time, so attention goes over whole stretches of slots, the last one not
filled yet and masked.

This has not been run on a GPU: the machines that this was written on have none. The turns themselves, with their
stretches, run in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch

STRETCH = 128
"""Slots to a graph: shorter ones read less that is not filled, longer ones are fewer to capture."""
WORTH_A_GRAPH = 8
"""Turns; to capture costs about as much as to start a turn's kernels a few times."""


def take_turns(turn: Callable[[int], None], extents: Sequence[int], *, on_gpu: bool) -> None:
    """Call `turn` with each extent in order; it finds all else in tensors, which it changes in place."""
    for extent, group in groupby(extents):
        count = len(list(group))
        turn(extent)  # also what a capture wants to have been done before
        left = count - 1
        if on_gpu and left >= WORTH_A_GRAPH:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                turn(extent)
            for _ in range(left):
                graph.replay()
        else:
            for _ in range(left):
                turn(extent)
