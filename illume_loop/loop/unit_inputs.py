"""The parts that unit functions share: their types, seeds and decode, and the rows that a unit covers.

A seed follows from the run's seed, the round and the seed's purpose. It never depends on batches, workers, ids of rows
or the clock.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from sqlalchemy.orm import Session

from illume_db.leases import Lease
from illume_db.prompts import PromptRow, prompts_at
from illume_loop.protocols import Sampling
from illume_loop.settings import SamplingSettings, Settings


def derived_seed(*parts: object) -> int:
    """Return 63 bits of the hash of `parts`. They fit a signed 64-bit column and a tensor of int64."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def sample_seed(run_seed: int, round_index: int, prompt_text: str, sample_index: int) -> int:
    """Return the seed of one sample. It is the same in any batch."""
    return derived_seed("sample", run_seed, round_index, prompt_text, sample_index)


def real_seed(run_seed: int, round_index: int) -> int:
    """Return the seed of a round's replayed pairs."""
    return derived_seed("real", run_seed, round_index)


def decode_of(settings: SamplingSettings) -> Sampling:
    """Return the decode at which a round's samples are drawn."""
    return Sampling(settings.guidance_scale, settings.temperature, settings.top_k, settings.top_p)


Effect = Callable[[Session], None]

OnItems = Callable[[int, int], None]


def span_of_update(settings: Settings, index: int) -> tuple[int, int]:
    """Return the rows (first, stop) of update `index` among those of its round, if workers draw and score."""
    num_rows = settings.grpo.prompts_per_update * settings.sampling.samples_per_prompt
    return (index - 1) * num_rows, index * num_rows


def rows_of_unit(session: Session, lease: Lease, samples_per_prompt: int) -> list[tuple[PromptRow, int]]:
    """Return (prompt, sample index) of each row that a unit covers."""
    first, stop = lease.first_row, lease.stop_row
    position = first // samples_per_prompt
    prompts = prompts_at(session, lease.round_id, position, -(-stop // samples_per_prompt))
    return [(prompts[row // samples_per_prompt - position], row % samples_per_prompt) for row in range(first, stop)]
