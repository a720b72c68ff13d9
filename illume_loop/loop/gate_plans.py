"""The plans of the gate's measurements.

They are held-out alignment, understanding, diversity and, with edits, editing; the trials of decodes on train prompts,
which find each version's best decode; and the closing comparison after the last round.

Invariants:

- A plan names everything that its result depends on besides the model, and `sha256` is over all of it. Versions
  measured under one plan saw the same prompts with the same seeds. So their items can be paired, and a measurement is
  never repeated.
- Each guard has one plan for the whole run.
- Held-out draws have new seeds in each round, for the parent too. With the same seeds, a lucky or unlucky draw of the
  parent would affect its comparison with every candidate.
- If the domain has no checker, the run's base decides about held-out draws, and it draws the pictures for the guard of
  understanding (judge/referee.py).
- No trial of a decode draws a held-out prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from random import Random
from typing import Any

from illume_loop.errors import UsageError
from illume_loop.loop.prompts import num_prompts
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import Domain, Prompt, Sampling, Split
from illume_loop.settings import GateSettings, Settings

HELDOUT = "heldout"

UNDERSTANDING = "understanding"

GUARDS = (UNDERSTANDING, "diversity")

EDITING = "editing"
"""The guard of a run whose rounds have edits."""

DRIFT = "drift"
"""The suite of the unit that measures a candidate's drift as a judge."""

DECODE = "decode"
"""The suite of a trial of one decode, on train prompts."""

CLOSING = "closing"
"""The suite of a unit that draws the held-out prompts of the closing comparison. Its evaluation is one of `heldout`."""

BEST_OF = "best-of"
"""The suite of a unit that chooses the best of several draws by the model's own judgement."""

DIVERSITY_PROMPTS = 32

DIVERSITY_SAMPLES = 8

DRIFT_SAMPLES = 256
"""The samples that candidate and base both judge. The standard error of the shift is then at most 0.1 nats."""

KEPT_DRAWS = 64
"""The number of held-out draws whose images are kept for the page."""

BEST_OF_PROMPTS, BEST_OF_SAMPLES = 256, 8
"""The draws of the base's best of 8. Half of the default held-out prompts take about 20 s on two cores."""

BEST_OF_PART = 64
"""The prompts of one unit of the best of 8."""

MOST_LOOKS = 3

LEAST_LOOK = 64
"""The fewest draws for a look before the last one. The mean of fewer draws is not yet nearly normal."""


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """A suite with everything that its result depends on besides the model."""

    suite: str
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    count: int
    batch_size: int
    num_kept: int = 0
    """The number of first images that are kept."""
    others: tuple[Prompt, ...] = ()
    """The prompts to tell from `prompts` in the pictures that the base draws; empty if the domain has probes."""
    judge: str = ""
    """The judge that decides; empty for the domain's checker."""

    def at(self, sampling: Sampling) -> MeasurePlan:
        """Return the plan at another decode. Only the plan at the run's setting keeps images."""
        return self if sampling == self.sampling else replace(self, sampling=sampling, num_kept=0)

    @property
    def decode(self) -> dict[str, Any] | None:
        """The decode that an evaluation stores; None for understanding, where the measured model draws nothing."""
        return None if self.suite == UNDERSTANDING else asdict(self.sampling)

    @property
    def of_heldout(self) -> bool:
        """True if each item is a held-out prompt."""
        return self.suite in (HELDOUT, EDITING)

    @property
    def sha256(self) -> str:
        """The hash that names the plan.

        It leaves out the number of kept images, and the batch size, which may change the last bit of a number.
        """
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
    """The plans of all gates of a run. They are at the run's setting; `MeasurePlan.at` gives another decode."""

    setting: Sampling
    """The decode of the run's setting."""
    judge: str
    """The judge that decides; empty for the domain's checker."""
    guards: Mapping[str, MeasurePlan]
    """The plans of the guards by suite, the same for every round."""
    looks: Callable[[int], Sequence[MeasurePlan]]
    """The function that returns the plans of a round's looks, in order. Each look adds held-out draws."""
    grid: tuple[Sampling, ...]
    """The decodes among which each version's best one is found."""
    trial: MeasurePlan
    """The plan of a trial of a decode."""
    closing: MeasurePlan
    """The held-out draws of the closing comparison."""
    best_of: Sequence[MeasurePlan]
    """The draws of the base's best of 8, in parts."""

    @property
    def trials(self) -> tuple[MeasurePlan, ...]:
        """The trials that find a version's best decode; none if the grid has one decode."""
        return tuple(self.trial.at(sampling) for sampling in self.grid) if len(self.grid) > 1 else ()

    def of(self, payload: Mapping[str, Any], round_index: int) -> MeasurePlan:
        """Return the plan of a unit: its suite, at the decode that it names or else at the run's setting.

        A unit that an older release planned names no decode, and perhaps no look.
        """
        suite, part = payload["suite"], payload.get("look", 0)
        plan: MeasurePlan
        if suite == HELDOUT:
            plan = self.looks(round_index)[part]
        elif suite == BEST_OF:
            plan = self.best_of[part]
        else:
            plan = {DECODE: self.trial, CLOSING: self.closing, **self.guards}[suite]
        return plan.at(Sampling(**payload["decode"])) if "decode" in payload else plan

    @property
    def compared_by(self) -> dict[str, Any]:
        """The judge of held-out draws and the decode of the run's setting, as JSON."""
        return {"judge": self.judge or "checker", **asdict(self.setting)}


def gate_plans(domain: Domain, settings: Settings) -> GatePlans:
    """Return the plans of a run. Raises UsageError if the domain has too few prompts."""
    prompts = domain.prompts("heldout", settings.gate.heldout_prompts, settings.run.seed)
    suites = [suite for suite in GUARDS if suite != UNDERSTANDING or has_understanding_guard(domain)]
    suites += [EDITING] if settings.sampling.num_edits else []
    guards = {suite: guard_plan(suite, domain, settings) for suite in suites}
    judge = _judge(domain)
    return GatePlans(
        setting=_sampling(settings),
        judge=judge,
        guards=guards,
        looks=lambda round_index: _look_plans(prompts, settings, round_index, judge),
        grid=decode_grid(settings),
        trial=trial_plan(domain, settings),
        closing=_closing_plan(prompts, settings, judge),
        best_of=_best_of_plans(prompts, settings, judge),
    )


def decode_grid(settings: Settings) -> tuple[Sampling, ...]:
    """Return the decodes to try: those of the settings' grid, with the top-k and top-p of [sampling]."""
    sampling = settings.sampling
    return tuple(
        Sampling(guidance, temperature, sampling.top_k, sampling.top_p)
        for guidance, temperature in settings.gate.decode_grid(sampling.temperature)
    )


def trial_plan(domain: Domain, settings: Settings) -> MeasurePlan:
    """Return the plan of a trial of a decode: train prompts that all trials of the run share, with their seeds.

    A domain with too few train prompts gives all that it has.
    """
    seed, wanted = settings.run.seed, settings.gate.decode_prompts

    def ask(count: int) -> list[Prompt]:
        # A seed of its own: the prompts of the run's seed are those that round 1 trains on.
        return domain.prompts("train", count, derived_seed(DECODE, seed) % 2**31)

    try:
        prompts = ask(wanted)
    except UsageError:
        prompts = ask(num_prompts(ask, wanted))
    seeds = [derived_seed(DECODE, seed, prompt.text) for prompt in prompts]
    return _drawing(DECODE, prompts, seeds, settings, _judge(domain))


def _closing_plan(prompts: Sequence[Prompt], settings: Settings, judge: str) -> MeasurePlan:
    # The noise is new: no gate has chosen a version by it.
    seeds = [derived_seed(CLOSING, settings.run.seed, prompt.text) for prompt in prompts]
    return _drawing(HELDOUT, prompts, seeds, settings, judge)


def _best_of_plans(prompts: Sequence[Prompt], settings: Settings, judge: str) -> list[MeasurePlan]:
    seed = settings.run.seed
    chosen = Random(derived_seed(BEST_OF, seed)).sample(prompts, min(BEST_OF_PROMPTS, len(prompts)))
    parts = [chosen[first : first + BEST_OF_PART] for first in range(0, len(chosen), BEST_OF_PART)]
    return [
        _drawing(
            BEST_OF,
            [prompt for prompt in part for _ in range(BEST_OF_SAMPLES)],
            [derived_seed(BEST_OF, seed, prompt.text, i) for prompt in part for i in range(BEST_OF_SAMPLES)],
            settings,
            judge,
        )
        for part in parts
    ]


def _drawing(
    suite: str, prompts: Sequence[Prompt], seeds: Sequence[int], settings: Settings, judge: str, num_kept: int = 0
) -> MeasurePlan:
    """Return a plan with one draw for each prompt, at the run's setting."""
    return MeasurePlan(
        suite,
        tuple(prompts),
        tuple(seeds),
        _sampling(settings),
        len(prompts),
        settings.sampling.batch_size,
        num_kept,
        judge=judge,
    )


def has_understanding_guard(domain: Domain) -> bool:
    """Return whether the gate can measure understanding.

    It reads the domain's reading probes. In a domain without a checker it reads pictures that the run's base draws.
    """
    return not domain.exact or bool(domain.reading_probes(1, 0))


def look_sizes(settings: GateSettings) -> tuple[int, ...]:
    """Return the number of held-out prompts drawn by the end of each look: a quarter, a half, all.

    It takes fewer looks at few prompts.
    """
    parts = (-(-settings.heldout_prompts // 2**power) for power in range(MOST_LOOKS - 1, 0, -1))
    return (*(size for size in parts if size >= LEAST_LOOK), settings.heldout_prompts)


def guard_plan(suite: str, domain: Domain, settings: Settings) -> MeasurePlan:
    """Return the plan of a guard. Raises UsageError if the domain has too few prompts."""
    seed = settings.run.seed
    prompts: list[Prompt] = []
    seeds = [derived_seed("probe", seed)]
    count = settings.gate.probe_items
    others: list[Prompt] = []
    if suite == UNDERSTANDING and not domain.exact:
        prompts, others = _prompts_to_distinguish(domain, count, seed)
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
    # A domain may order its prompts by category, and each look has to represent all of them.
    shuffled = Random(derived_seed("looks", seed, round_index)).sample(prompts, len(prompts))
    plans = []
    first = 0
    for stop in look_sizes(settings.gate):
        chunk = tuple(shuffled[first:stop])
        seeds = tuple(derived_seed("heldout", seed, round_index, prompt.text) for prompt in chunk)
        plans.append(_drawing(HELDOUT, chunk, seeds, settings, judge, max(0, KEPT_DRAWS - first)))
        first = stop
    return plans


def _prompts_to_distinguish(domain: Domain, count: int, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Return `count` prompts to draw, and for each of them another prompt to tell it from.

    The prompts are of the split `probe` if it has two, or else of `heldout`. The other prompt is of the same category
    if there is one. Raises UsageError if there are no two different prompts.
    """
    num_probes = num_prompts(lambda most: domain.prompts("probe", most, seed), count + 1)
    split: Split = "probe" if num_probes > 1 else "heldout"
    found = domain.prompts(split, num_prompts(lambda most: domain.prompts(split, most, seed), count + 1), seed)
    if len({prompt.key for prompt in found}) < 2:
        raise UsageError("the gate needs two different held-out prompts at least; import more with --split heldout")
    prompts = [found[i % len(found)] for i in range(count)]
    return prompts, [_other(prompt, found, i) for i, prompt in enumerate(prompts)]


def _other(prompt: Prompt, found: Sequence[Prompt], place: int) -> Prompt:
    """Return the next different prompt after a place, of the same category if there is one."""
    following = [found[(place + step) % len(found)] for step in range(1, len(found))]
    different = [other for other in following if other.key != prompt.key]
    return next((other for other in different if other.category == prompt.category), different[0])


def _sampling(settings: Settings) -> Sampling:
    sampling = settings.sampling
    return Sampling(settings.gate.guidance_scale, sampling.temperature, sampling.top_k, sampling.top_p)
