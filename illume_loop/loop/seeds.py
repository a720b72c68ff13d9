"""Seeds of everything that is drawn by chance in a run.

A seed follows from the run's seed, the round and what it is for. It never depends on batches, workers, ids of rows or
the clock.
"""

from __future__ import annotations

import hashlib


def derived_seed(*parts: object) -> int:
    """63 bits from the hash of `parts`: they fit a signed 64-bit column, and a tensor of int64."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def sample_seed(run_seed: int, round_index: int, prompt_text: str, sample_index: int) -> int:
    """The seed of one sample, whatever batch it is drawn in."""
    return derived_seed("sample", run_seed, round_index, prompt_text, sample_index)


def real_seed(run_seed: int, round_index: int) -> int:
    """The seed of the replayed pairs of a round."""
    return derived_seed("real", run_seed, round_index)
