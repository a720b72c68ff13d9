"""What a round will draw, and with which seeds. Pure, but for asking the domain for its prompts.

Guarantee: everything here follows from the settings, the run's seed, the round's index and, for replay, from which
prompts earlier rounds drew in vain. Nothing depends on batches, workers, ids of rows or the clock, so a resumed run
plans what the interrupted one had planned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from illume_db.units import NewUnit
from illume_loop.config import SamplingSettings, Settings
from illume_loop.domains.protocol import Domain, Prompt
from illume_loop.errors import UsageError


def derived_seed(*parts: object) -> int:
    """63 bits from the hash of `parts`: they fit a signed 64-bit column, and a tensor of int64."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def sample_seed(run_seed: int, round_index: int, prompt_text: str, sample_index: int) -> int:
    """The seed of one sample, whatever batch it is drawn in."""
    return derived_seed("sample", run_seed, round_index, prompt_text, sample_index)


def round_prompts(domain: Domain, settings: Settings, round_index: int) -> list[Prompt]:
    """The prompts of a round before any gives way: each round goes on where the one before stopped, and begins anew
    when all were drawn. Edits come last.

    Raises UsageError when the domain has fewer train prompts, or edits, than one round needs.
    """
    count, seed = settings.sampling.prompts_per_round, settings.run.seed
    num_edits = settings.sampling.num_edits
    drawn = _of_round(lambda most: domain.prompts("train", most, seed), count - num_edits, round_index)
    return drawn + _of_round(lambda most: domain.edits("train", most, seed), num_edits, round_index)


def _of_round(ask: Callable[[int], list[Prompt]], count: int, round_index: int) -> list[Prompt]:
    """`count` prompts of those that `ask` gives at most so many of. Raises UsageError as it does."""
    first, stop = (round_index - 1) * count, round_index * count
    if not count:
        return []
    try:
        return ask(stop)[first:]
    except UsageError:
        if round_index == 1:
            raise
    prompts = ask(num_prompts(ask, stop))
    return [prompts[position % len(prompts)] for position in range(first, stop)]


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """What a round draws, in order, and how many of its prompts are there for a reason of their own."""

    prompts: list[Prompt]
    num_replayed: int = 0
    num_pairs: int = 0
    """Minimal pairs: two prompts each."""


def round_plan(domain: Domain, settings: Settings, round_index: int, unsolved: Sequence[Prompt] = ()) -> RoundPlan:
    """What a round draws: `round_prompts`, of which some give way.

    At most `sampling.replay_share` of them give way to prompts of `unsolved`, which earlier rounds drew in vain, the
    first ones first; of at most `sampling.minimal_pairs`, every second one gives way to the partner of the first. What
    gives way is of the same category, so the balance over categories stays that of the domain. Raises as
    `round_prompts` does.
    """
    fresh = round_prompts(domain, settings, round_index)
    sampling, seed = settings.sampling, derived_seed("partner", settings.run.seed, round_index)
    chosen = list(fresh)
    taken = {prompt.text for prompt in fresh}
    num_replayed = num_pairs = 0
    for category in sorted({prompt.category for prompt in fresh}):
        places = [place for place, prompt in enumerate(fresh) if prompt.category == category]
        again = [prompt for prompt in unsolved if prompt.category == category and prompt.text not in taken]
        again = again[: int(sampling.replay_share * len(places))]
        for place, prompt in zip(reversed(places), again, strict=False):
            chosen[place] = prompt
            taken.add(prompt.text)
        num_replayed += len(again)
        free = places[: len(places) - len(again)]
        most = int(sampling.minimal_pairs * len(places) / 2)
        for first, second in list(zip(free[::2], free[1::2], strict=False))[:most]:
            partner = None if chosen[first].is_edit else domain.partner(chosen[first], seed)
            if partner is not None and partner.text not in taken:
                chosen[second] = partner
                taken.add(partner.text)
                num_pairs += 1
    return RoundPlan(chosen, num_replayed, num_pairs)


def num_prompts(ask: Callable[[int], list[Prompt]], too_many: int) -> int:
    """How many prompts there are, by bisection: a domain says only when it is asked for too many."""
    enough = 0
    while too_many - enough > 1:
        middle = (enough + too_many) // 2
        try:
            ask(middle)
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
