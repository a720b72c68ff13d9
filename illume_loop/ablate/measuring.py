"""The measurement of a study's model, stored by checkpoint and plan.

Invariants:
- Every model of a study is measured with the same prompts and the same noise, so two models can be compared draw by
  draw. No gate uses this noise.
- A measurement is made once for all cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from illume_loop.ablate.study import Measures
from illume_loop.artifacts.locks import exclusive_lock
from illume_loop.domains import get_domain
from illume_loop.evals.suites import alignment, prompt_diversity, understanding
from illume_loop.files import write_atomically
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.models.registry import load_model
from illume_loop.protocols import Prompt, Sampling, UnifiedModel
from illume_loop.settings import Settings

DIVERSITY_SAMPLES = 8
PROMPT_SEED = 20_000
"""The seed of the prompts and probes, the same in all studies."""

OnItems = Callable[[str, int, int], None]
"""Called with (what is measured, items done, total items)."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a measurement depends on, except the model and the machine."""

    domain: str
    measures: Measures
    guidances: tuple[float, ...]
    guidance: float
    """The guidance of the diversity's samples."""
    temperature: float
    top_k: int
    top_p: float
    batch_size: int

    def sha256(self, checkpoint: str) -> str:
        """Return the name of a checkpoint's measurement; `checkpoint` is the checkpoint's digest."""
        content = {
            "domain": self.domain,
            "measures": self.measures.model_dump(),
            "guidances": self.guidances,
            "guidance": self.guidance,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "checkpoint": checkpoint,
        } | ({"top_p": self.top_p} if self.top_p < 1.0 else {})  # measurements older than `top_p` keep their names
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurement of a model: the outcome of each draw by guidance ("1.5"), of each probe, and the diversity."""

    heldout: dict[str, list[bool]]
    understanding: list[bool]
    diversity: float


def plan_of(settings: Settings, measures: Measures) -> Plan:
    """Return the plan of a study's settings: draws at the gate's guidance, and draws without guidance."""
    guidance = settings.gate.guidance_scale
    return Plan(
        settings.run.domain,
        measures,
        tuple(dict.fromkeys((guidance, 1.0))),
        guidance,
        settings.sampling.temperature,
        settings.sampling.top_k,
        settings.sampling.top_p,
        settings.sampling.batch_size,
    )


def measure_once(plan: Plan, checkpoint: str, path: Path, folder: Path, device: str, on_items: OnItems) -> Measured:
    """Return the measurement of the checkpoint in `path`; read it from `folder` if it was made before."""
    file = folder / f"{plan.sha256(checkpoint)}.json"
    with exclusive_lock(file.with_suffix(".lock")):
        if not file.exists():
            found = _measure(load_model(path, device=device), plan, on_items)
            write_atomically(file, json.dumps(asdict(found)).encode())
        return Measured(**json.loads(file.read_bytes()))


def _measure(model: UnifiedModel, plan: Plan, on_items: OnItems) -> Measured:
    domain, measures = get_domain(plan.domain), plan.measures
    prompts = domain.prompts("heldout", measures.heldout_prompts, PROMPT_SEED)
    seeds = [derived_seed("study", draw, prompt.text) for draw in range(measures.draws) for prompt in prompts]
    heldout = {}
    for guidance in plan.guidances:
        told = partial(on_items, f"drawing at guidance {guidance:g}")
        sampling = Sampling(guidance, plan.temperature, plan.top_k, plan.top_p)
        drawn = alignment(model, domain, prompts * measures.draws, seeds, sampling, plan.batch_size, told)
        heldout[f"{guidance:g}"] = drawn.passed
    on_items("reading", 0, measures.probes)
    right = understanding(model, domain, measures.probes, PROMPT_SEED)
    on_items("reading", measures.probes, measures.probes)
    return Measured(
        heldout, right, _diversity(model, plan, domain.prompts("heldout", measures.diversity_prompts, PROMPT_SEED))
    )


def _diversity(model: UnifiedModel, plan: Plan, prompts: Sequence[Prompt]) -> float:
    texts = [prompt.text for prompt in prompts]
    seeds_PS = [[derived_seed("study diversity", i, text) for i in range(DIVERSITY_SAMPLES)] for text in texts]
    return prompt_diversity(model, texts, seeds_PS, Sampling(plan.guidance, plan.temperature, plan.top_k, plan.top_p))
