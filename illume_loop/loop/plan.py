"""What a round will draw, and with which seeds. Pure, but for asking the domain for its prompts.

Guarantee: everything here follows from the settings, the run's seed and the round's index. Nothing depends on batches,
workers, ids of rows or the clock, so a resumed run plans what the interrupted one had planned.
"""

from __future__ import annotations

import hashlib

from db.writes.units import NewUnit
from illume_loop.config import SamplingSettings, Settings
from illume_loop.domains.protocol import Domain, Prompt, Split
from illume_loop.errors import UsageError


def derived_seed(*parts: object) -> int:
    """63 bits from the hash of `parts`: they fit a signed 64-bit column, and a tensor of int64."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def sample_seed(run_seed: int, round_index: int, prompt_text: str, sample_index: int) -> int:
    """The seed of one sample, whatever batch it is drawn in."""
    return derived_seed("sample", run_seed, round_index, prompt_text, sample_index)


def round_prompts(domain: Domain, settings: Settings, round_index: int) -> list[Prompt]:
    """The prompts of a round: each round goes on where the one before stopped, and begins anew when all were drawn.

    Raises UsageError when the domain has fewer train prompts than one round needs.
    """
    count = settings.sampling.prompts_per_round
    first, stop = (round_index - 1) * count, round_index * count
    try:
        return domain.prompts("train", stop, settings.run.seed)[first:]
    except UsageError:
        if round_index == 1:
            raise
    prompts = domain.prompts("train", _num_prompts(domain, "train", stop, settings.run.seed), settings.run.seed)
    return [prompts[position % len(prompts)] for position in range(first, stop)]


def _num_prompts(domain: Domain, split: Split, too_many: int, seed: int) -> int:
    """How many prompts a split has, by bisection: a domain says only when it is asked for too many."""
    enough = 0
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        try:
            domain.prompts(split, middle, seed)
            enough = middle
        except UsageError:
            too_many = middle
    return enough


def sampling_units(sampling: SamplingSettings, assess_batch_size: int) -> list[NewUnit]:
    """The units that draw and assess a round.

    Row r of a round is sample r % samples_per_prompt of the prompt at position r // samples_per_prompt.
    """
    num_rows = sampling.prompts_per_round * sampling.samples_per_prompt
    return _units("sample", num_rows, sampling.batch_size) + _units("assess", num_rows, assess_batch_size)


def _units(kind: str, num_rows: int, batch_size: int) -> list[NewUnit]:
    return [
        NewUnit(
            kind, f"{kind}/{first}", {}, (first, min(first + batch_size, num_rows)), min(batch_size, num_rows - first)
        )
        for first in range(0, num_rows, batch_size)
    ]
