"""What the gate measures of a model version: held-out alignment, understanding, diversity.

Guarantee: a measure's plan names everything that its result depends on besides the model, and `sha256` is over all of
it. Versions measured under one plan saw the same prompts with the same seeds, so their items can be paired, and what
was measured once is never drawn again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from PIL import Image

from illume_loop.config import Settings
from illume_loop.domains.protocol import Domain, Prompt
from illume_loop.evals.suites import alignment, prompt_diversity, understanding
from illume_loop.loop.plan import derived_seed
from illume_loop.models.protocol import Sampling, UnifiedModel

SUITES = ("heldout", "understanding", "diversity")
DIVERSITY_PROMPTS = 32
DIVERSITY_SAMPLES = 8
KEPT_DRAWS = 64
"""Held-out draws whose images are kept for the page."""


@dataclass(frozen=True, slots=True)
class MeasurePlan:
    """One suite with all that its result depends on, besides the model."""

    suite: str
    prompts: tuple[Prompt, ...]
    seeds: tuple[int, ...]
    sampling: Sampling
    count: int
    batch_size: int

    @property
    def sha256(self) -> str:
        """Names the plan. The batch size is left out: it may change the last bit of a number, not what is measured."""
        content = {
            "suite": self.suite,
            "prompts": [prompt.text for prompt in self.prompts],
            "seeds": self.seeds,
            "sampling": asdict(self.sampling),
            "count": self.count,
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Measurement:
    """`value` in 0..1 of the whole, each item's outcome where there are items, and the first images drawn."""

    value: float
    passed: list[bool]
    images: list[Image.Image]


def measure_plan(suite: str, domain: Domain, settings: Settings) -> MeasurePlan:
    """The plan of one suite for every round of a run. Raises UsageError when the domain has too few prompts."""
    seed, gate = settings.run.seed, settings.gate
    sampling = Sampling(gate.guidance_scale, settings.sampling.temperature, settings.sampling.top_k)
    prompts: list[Prompt] = []
    seeds = [derived_seed("probe", seed)]
    count = gate.probe_items
    if suite == "heldout":
        prompts = domain.prompts("heldout", gate.heldout_prompts, seed)
        seeds = [derived_seed("heldout", seed, prompt.text) for prompt in prompts]
        count = len(prompts)
    elif suite == "diversity":
        prompts = domain.prompts("train", min(DIVERSITY_PROMPTS, settings.sampling.prompts_per_round), seed)
        seeds = [derived_seed("diversity", seed, p.text, i) for p in prompts for i in range(DIVERSITY_SAMPLES)]
        count = len(prompts)
    return MeasurePlan(suite, tuple(prompts), tuple(seeds), sampling, count, settings.sampling.batch_size)


def measure(
    plan: MeasurePlan, model: UnifiedModel, domain: Domain, on_items: Callable[[int, int], None]
) -> Measurement:
    """Carry out a plan on a model."""
    if plan.suite == "heldout":
        drawn = alignment(model, domain, plan.prompts, plan.seeds, plan.sampling, plan.batch_size, on_items)
        return Measurement(_share(drawn.passed), drawn.passed, drawn.images[:KEPT_DRAWS])
    if plan.suite == "understanding":
        right = understanding(model, domain, plan.count, plan.seeds[0])
        return Measurement(_share(right), right, [])
    seeds_PS = [plan.seeds[start : start + DIVERSITY_SAMPLES] for start in range(0, len(plan.seeds), DIVERSITY_SAMPLES)]
    value = prompt_diversity(model, [prompt.text for prompt in plan.prompts], seeds_PS, plan.sampling)
    return Measurement(value, [], [])


def _share(outcomes: list[bool]) -> float:
    return sum(outcomes) / len(outcomes)
