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

from illume_loop.hooks import OnProgress, ignore

STRETCH = 128
"""Slots to a graph: shorter ones read less that is not filled, longer ones are fewer to capture."""
WORTH_A_GRAPH = 8
"""Turns; to capture costs about as much as to start a turn's kernels a few times."""
TURNS_TO_A_REPORT = 16
"""A GPU is at most two reports behind its host, which costs nothing: the host is never the one that is waited for."""


def take_turns(
    turn: Callable[[int], None], extents: Sequence[int], *, on_gpu: bool, on_progress: OnProgress = ignore
) -> None:
    """Call `turn` with each extent in order; it finds all else in tensors, which it changes in place.

    `on_progress` is called after every few turns that were really done, not merely started.
    """
    reporter = _Reporter(on_progress, on_gpu=on_gpu)
    for extent, group in groupby(extents):
        count = len(list(group))
        turn(extent)  # also what a capture wants to have been done before
        reporter.turned()
        left = count - 1
        if on_gpu and left >= WORTH_A_GRAPH:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                turn(extent)
            for _ in range(left):
                graph.replay()
                reporter.turned()
        else:
            for _ in range(left):
                turn(extent)
                reporter.turned()


class _Reporter:
    """Reports turns; on a GPU those that it has finished, since a host starts thousands ahead."""

    def __init__(self, on_progress: OnProgress, *, on_gpu: bool) -> None:
        self._on_progress, self._on_gpu = on_progress, on_gpu
        self._num_turns = 0
        self._started: torch.cuda.Event | None = None

    def turned(self) -> None:
        """One more turn was started."""
        self._num_turns += 1
        if self._num_turns % TURNS_TO_A_REPORT:
            return
        if self._on_gpu:
            before, self._started = self._started, torch.cuda.Event()
            self._started.record()
            if before is None:
                return
            before.synchronize()
        self._on_progress()
