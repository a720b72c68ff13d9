"""The steps of the drawing loop, one after the other; on a GPU as CUDA graphs, one for each stretch of slots.

A step of a decoder is hundreds of small kernels. A GPU does them faster than a host can start them, and a graph starts
them all at once. A graph needs the same shapes each time, so attention goes over whole stretches of slots. The slots of
the last stretch that are not filled yet are masked.

The graphs have not been run on a GPU. The steps themselves, with their stretches, run in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby

import torch

from illume_loop.hooks import OnProgress, ignore

STRETCH = 128
"""Slots of one graph. Shorter stretches read fewer slots that are not filled; longer ones need fewer graphs."""
MIN_STEPS_FOR_GRAPH = 8
"""The fewest steps for which a graph is captured: a capture costs about as much as starting a few steps' kernels."""
STEPS_PER_REPORT = 16
"""Steps between two reports; a GPU is at most two reports behind its host, for which it never waits."""


def take_turns(
    turn: Callable[[int], None], extents: Sequence[int], *, on_gpu: bool, on_progress: OnProgress = ignore
) -> None:
    """Run `turn`, one step of the loop, for each extent in order.

    `turn` finds all else in tensors, which it changes in place. `on_progress` is called after every few steps that are
    done, not merely started.
    """
    reporter = _Reporter(on_progress, on_gpu=on_gpu)
    for extent, group in groupby(extents):
        count = len(list(group))
        turn(extent)  # a capture also needs one step to have run before
        reporter.turned()
        left = count - 1
        if on_gpu and left >= MIN_STEPS_FOR_GRAPH:
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
    """A reporter of steps; on a GPU it reports those that are finished, as a host starts thousands ahead."""

    def __init__(self, on_progress: OnProgress, *, on_gpu: bool) -> None:
        self._on_progress, self._on_gpu = on_progress, on_gpu
        self._num_turns = 0
        self._started: torch.cuda.Event | None = None

    def turned(self) -> None:
        """Count one more started step; report progress every TURNS_TO_A_REPORT steps."""
        self._num_turns += 1
        if self._num_turns % STEPS_PER_REPORT:
            return
        if self._on_gpu:
            before, self._started = self._started, torch.cuda.Event()
            self._started.record()
            if before is None:
                return
            before.synchronize()
        self._on_progress()
