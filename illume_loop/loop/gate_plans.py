"""Plans of what the gate measures: held-out alignment, understanding, diversity and, with edits, editing.

Invariants:

- A plan names everything that its result depends on besides the model, and `sha256` is over all of it. Versions
  measured under one plan saw the same prompts with the same seeds, so their items can be paired, and what was measured
  once is never drawn again.
- The guards have one plan for the whole run. Held-out draws have new noise in each round, for the parent too: with the
  same noise, what a parent was lucky or unlucky in would count for or against every candidate that meets it.
- Where the domain has no checker, the run's base decides about held-out draws and draws the pictures that are to be
  read (judge/referee.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from illume_loop.errors import UsageError
from illume_loop.loop.prompts import num_prompts
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import Domain, Prompt, Sampling, Split
from illume_loop.settings import GateSettings, Settings

UNDERSTANDING = "understanding"

GUARDS = (UNDERSTANDING, "diversity")

EDITING = "editing"
"""The guard of a run whose rounds have edits."""

DIVERSITY_PROMPTS = 32

DIVERSITY_SAMPLES = 8

DRIFT_SAMPLES = 256
"""Samples of the round that candidate and base both judge: the shift's standard error is a tenth of a nat or less."""

KEPT_DRAWS = 64
"""Held-out draws whose images are kept for the page."""

MOST_LOOKS = 3

LEAST_LOOK = 64
"""Draws below which the mean is not yet nearly normal, and which are too few to look at before the end."""


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """One suite with all that its result depends on, besides the model."""

    suite: str
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    count: int
    batch_size: int
    num_kept: int = 0
    """How many of the first images are kept."""
    others: tuple[Prompt, ...] = ()
    """What a reading of the base's pictures has to tell from `prompts`; none where the domain has probes."""
    judge: str = ""
    """Who decides, where that is not the domain's checker."""

    @property
    def of_heldout(self) -> bool:
        """Whether its items are held-out prompts, one each."""
        return self.suite in ("heldout", EDITING)

    @property
    def sha256(self) -> str:
        """Names the plan. What is kept is left out, and the batch size, which may change the last bit of a number."""
        content = {
            "suite": self.suite,
            "prompts": [prompt.text for prompt in self.prompts],
            "seeds": self.seeds,
            "sampling": self.sampling.content(),
            "count": self.count,
        }
        if self.judge:
            content |= {"judge": self.judge, "others": [prompt.text for prompt in self.others]}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class GatePlans:
    """What the gates of a run measure."""

    guards: Mapping[str, MeasurePlan]
    """By suite; the same for every round."""
    looks: Callable[[int], Sequence[MeasurePlan]]
    """The held-out draws of a round's looks, in order; each look has those that the looks before it lack."""

    def of(self, suite: str, round_index: int, look: int) -> MeasurePlan:
        """The plan of a guard, or of the held-out draws that a look of a round adds."""
        return self.looks(round_index)[look] if suite == "heldout" else self.guards[suite]

    def compared_by(self, round_index: int) -> dict[str, Any]:
        """Return who judges a round's held-out draws, and how they are drawn."""
        plan = self.looks(round_index)[0]
        return {"judge": plan.judge or "checker", **asdict(plan.sampling)}


def gate_plans(domain: Domain, settings: Settings) -> GatePlans:
    """The plans of a run. Raises UsageError when the domain has too few prompts."""
    prompts = domain.prompts("heldout", settings.gate.heldout_prompts, settings.run.seed)
    suites = [suite for suite in GUARDS if suite != UNDERSTANDING or has_understanding_guard(domain)]
    suites += [EDITING] if settings.sampling.num_edits else []
    guards = {suite: guard_plan(suite, domain, settings) for suite in suites}
    judge = _judge(domain)
    return GatePlans(guards, lambda round_index: _look_plans(prompts, settings, round_index, judge))


def has_understanding_guard(domain: Domain) -> bool:
    """Whether the gate can measure understanding: with the domain's reading probes, or without a checker on pictures
    that the run's base draws."""
    return not domain.exact or bool(domain.reading_probes(1, 0))


def look_sizes(settings: GateSettings) -> tuple[int, ...]:
    """How many held-out prompts are drawn by each look: a quarter, a half, all. Of few prompts, fewer looks."""
    parts = (-(-settings.heldout_prompts // 2**power) for power in range(MOST_LOOKS - 1, 0, -1))
    return (*(size for size in parts if size >= LEAST_LOOK), settings.heldout_prompts)


def guard_plan(suite: str, domain: Domain, settings: Settings) -> MeasurePlan:
    """The plan of a guard, by its suite. Raises UsageError when the domain has too few prompts."""
    seed = settings.run.seed
    prompts: list[Prompt] = []
    seeds = [derived_seed("probe", seed)]
    count = settings.gate.probe_items
    others: list[Prompt] = []
    if suite == UNDERSTANDING and not domain.exact:
        prompts, others = _to_be_told_apart(domain, count, seed)
        seeds = [derived_seed("probe", seed, prompt.text, i) for i, prompt in enumerate(prompts)]
    if suite == "diversity":
        prompts = domain.prompts("train", min(DIVERSITY_PROMPTS, settings.sampling.prompts_per_round), seed)
        seeds = [derived_seed("diversity", seed, p.text, i) for p in prompts for i in range(DIVERSITY_SAMPLES)]
        count = len(prompts)
    elif suite == EDITING:
        prompts = domain.edits("heldout", count, seed)
        seeds = [derived_seed(EDITING, seed, prompt.text) for prompt in prompts]
    return MeasurePlan(
        suite,
        tuple(prompts),
        tuple(seeds),
        _sampling(settings),
        count,
        settings.sampling.batch_size,
        others=tuple(others),
        judge=_judge(domain) if others else "",
    )


def _judge(domain: Domain) -> str:
    return "" if domain.exact else "frozen"


def _look_plans(prompts: Sequence[Prompt], settings: Settings, round_index: int, judge: str) -> list[MeasurePlan]:
    seed = settings.run.seed
    # A domain's order may be by category, and a look has to be like the whole.
    shuffled = Random(derived_seed("looks", seed, round_index)).sample(prompts, len(prompts))
    plans = []
    first = 0
    for stop in look_sizes(settings.gate):
        chunk = tuple(shuffled[first:stop])
        seeds = tuple(derived_seed("heldout", seed, round_index, prompt.text) for prompt in chunk)
        num_kept = max(0, KEPT_DRAWS - first)
        batch_size = settings.sampling.batch_size
        plan = MeasurePlan("heldout", chunk, seeds, _sampling(settings), len(chunk), batch_size, num_kept, judge=judge)
        plans.append(plan)
        first = stop
    return plans


def _to_be_told_apart(domain: Domain, count: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """`count` prompts to be drawn, of the split `probe` or else `heldout`, each with another one of its category.

    Raises UsageError where there are no two different prompts.
    """
    num_probes = num_prompts(lambda most: domain.prompts("probe", most, seed), count + 1)
    split: Split = "probe" if num_probes > 1 else "heldout"
    found = domain.prompts(split, num_prompts(lambda most: domain.prompts(split, most, seed), count + 1), seed)
    if len({prompt.key for prompt in found}) < 2:
        raise UsageError("the gate needs two different held-out prompts at least; import more with --split heldout")
    prompts = [found[i % len(found)] for i in range(count)]
    return prompts, [_other(prompt, found, i) for i, prompt in enumerate(prompts)]


def _other(prompt: Prompt, found: Sequence[Prompt], place: int) -> Prompt:
    """The next different prompt after a place, of the same category where there is one."""
    following = [found[(place + step) % len(found)] for step in range(1, len(found))]
    different = [other for other in following if other.key != prompt.key]
    return next((other for other in different if other.category == prompt.category), different[0])


def _sampling(settings: Settings) -> Sampling:
    sampling = settings.sampling
    return Sampling(settings.gate.guidance_scale, sampling.temperature, sampling.top_k, sampling.top_p)
