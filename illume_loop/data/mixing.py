"""The weighted order of rows from several sources: which row stands at which position of a training.

Invariants:
- The row at a position depends only on the seed and the position. A resumed training, or one with another number of
  processes, has the same rows.
- In each PERIOD positions, every part of the mix has its exact share.
- Each part uses all of its rows once before it repeats one. Then it uses all of them again in another order.
- The order of windows of WINDOW rows is random, and so is the order inside a window. So rows that are read one after
  the other lie near each other on the disk.
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
class MixChoice:
    """The choice for a position: the part of the mix, the row's number in its source, and the position's own RNG."""

    part: int
    row: int
    rng: Random


class Mix:
    """A weighted mix of parts. `rows_of_parts` holds the numbers of the rows that each part may take."""

    def __init__(self, weights: Sequence[float], rows_of_parts: Sequence[Rows], seed: int, purpose: str) -> None:
        """Make the mix. Raises ValueError if a part has no rows, or too small a weight for one row in PERIOD."""
        self.counts = _shares(weights)
        self.rows_of_parts = rows_of_parts
        self.key = f"{seed}/{purpose}"
        for part, (count, rows) in enumerate(zip(self.counts, rows_of_parts, strict=True)):
            if not count or not len(rows):
                raise ValueError(f"part {part} has {'no rows' if count else 'too small a weight'}")

    def at(self, position: int) -> MixChoice:
        """Return the choice for a position, counted from 0."""
        period, offset = divmod(position, PERIOD)
        parts, ranks = _order_of(self.counts, f"{self.key}/period/{period}")
        part = int(parts[offset])
        taken = period * self.counts[part] + int(ranks[offset])
        rows = self.rows_of_parts[part]
        through, index = divmod(taken, len(rows))
        row = int(rows[shuffled(index, len(rows), f"{self.key}/part/{part}/{through}")])
        return MixChoice(part, row, Random(f"{self.key}/row/{position}"))


def shuffled(index: int, size: int, key: str) -> int:
    """Return item number `index` of the random order of `size` items that the key gives."""
    starts, windows = _windows(size, key)
    place = int(np.searchsorted(starts, index, side="right")) - 1
    window = int(windows[place])
    length = min(WINDOW, size - window * WINDOW)
    return window * WINDOW + int(_permutation(length, f"{key}/{window}")[index - int(starts[place])])


@lru_cache(maxsize=256)
def _windows(size: int, key: str) -> tuple[Rows, Rows]:
    """Return the index at which each window begins in the random order, and the window's number."""
    windows = _permutation(-(-size // WINDOW), key)
    lengths = np.minimum(WINDOW, size - windows * WINDOW)
    return np.cumsum(lengths) - lengths, windows


@lru_cache(maxsize=16)
def _order_of(counts: tuple[int, ...], key: str) -> tuple[Rows, Rows]:
    """Return the part at each offset of a period, in random order, and its rank among its part's rows."""
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
    """Return weights as counts that sum to PERIOD, rounded by largest remainders."""
    exact = [PERIOD * weight / sum(weights) for weight in weights]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda part: counts[part] - exact[part])
    for part in by_remainder[: PERIOD - sum(counts)]:
        counts[part] += 1
    return tuple(counts)
