"""Which row of which source stands at which position of a training, by weights.

Guarantee: what stands at a position is a function of the seed and the position alone, so a training that is killed and
goes on, or is shared by other processes, has the rows that it would have had. Of each PERIOD rows every part of the mix
has its exact share. Each part goes through its rows without repeating one before all were there; then
through all of them again, in another order. The order is random among windows of WINDOW rows and inside each, so that
rows which are read after each other lie near each other on the disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

import numpy as np
from numpy.typing import NDArray

PERIOD = 1_000
WINDOW = 1_024

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Chosen:
    """What stands at a position: the part of the mix, a row of its source, and randomness of its own."""

    part: int
    row: int
    rng: Random


class Mix:
    """Parts with weights; `rows_of_parts` are the numbers of the rows that each may take."""

    def __init__(self, weights: Sequence[float], rows_of_parts: Sequence[Rows], seed: int, purpose: str) -> None:
        """Raises ValueError for a part without rows, or whose weight is too small to count."""
        self.counts = _shares(weights)
        self.rows_of_parts = rows_of_parts
        self.key = f"{seed}/{purpose}"
        for part, (count, rows) in enumerate(zip(self.counts, rows_of_parts, strict=True)):
            if not count or not len(rows):
                raise ValueError(f"part {part} has {'no rows' if count else 'too small a weight'}")

    def at(self, position: int) -> Chosen:
        """What stands at a position, from 0."""
        period, offset = divmod(position, PERIOD)
        parts, ranks = _order_of(self.counts, f"{self.key}/period/{period}")
        part = int(parts[offset])
        taken = period * self.counts[part] + int(ranks[offset])
        rows = self.rows_of_parts[part]
        through, index = divmod(taken, len(rows))
        row = int(rows[shuffled(index, len(rows), f"{self.key}/part/{part}/{through}")])
        return Chosen(part, row, Random(f"{self.key}/row/{position}"))


def shuffled(index: int, size: int, key: str) -> int:
    """Where the index-th of `size` stands in the random order of a key."""
    starts, windows = _windows(size, key)
    place = int(np.searchsorted(starts, index, side="right")) - 1
    window = int(windows[place])
    length = min(WINDOW, size - window * WINDOW)
    return window * WINDOW + int(_permutation(length, f"{key}/{window}")[index - int(starts[place])])


@lru_cache(maxsize=256)
def _windows(size: int, key: str) -> tuple[Rows, Rows]:
    """At which index each window begins, and which window it is."""
    windows = _permutation(-(-size // WINDOW), key)
    lengths = np.minimum(WINDOW, size - windows * WINDOW)
    return np.cumsum(lengths) - lengths, windows


@lru_cache(maxsize=16)
def _order_of(counts: tuple[int, ...], key: str) -> tuple[Rows, Rows]:
    """The parts of a period in random order, and the how-manieth of its part each one is."""
    parts = np.repeat(np.arange(len(counts)), counts)[_permutation(PERIOD, key)]
    ranks = np.empty(PERIOD, np.int64)
    for part, count in enumerate(counts):
        ranks[parts == part] = np.arange(count)
    return parts, ranks


@lru_cache(maxsize=256)
def _permutation(size: int, key: str) -> Rows:
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).permutation(size)


def _shares(weights: Sequence[float]) -> tuple[int, ...]:
    """Weights as counts that sum to PERIOD, by largest remainders."""
    exact = [PERIOD * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda part: counts[part] - exact[part])
    for part in by_remainder[: PERIOD - sum(counts)]:
        counts[part] += 1
    return tuple(counts)
