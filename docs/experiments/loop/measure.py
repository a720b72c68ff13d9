"""Measures finished runs on fresh seeds and prints the tables of README.md in this folder.

    python docs/experiments/loop/measure.py RUN_DIR [RUN_DIR ...]

Each run's base and active version draw the same 512 held-out prompts twice, with the same noise, which no gate has
drawn. The gain is pooled over runs: its interval resamples (run, draw) pairs. The base's own best guidance is swept on
train prompts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from illume_loop.cli.loading import load
from illume_loop.domains import get_domain
from illume_loop.domains.protocol import Prompt
from illume_loop.evals.statistics import Interval, paired_bootstrap
from illume_loop.evals.suites import alignment, prompt_diversity, understanding
from illume_loop.models.protocol import Sampling, UnifiedModel

HELDOUT, DRAWS, SWEEP, PROBES, DIVERSE = 512, 2, 256, 512, 64
GUIDANCES = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0)
DEFAULT_GUIDANCE = 1.5
SEED = 20_000
DOMAIN = get_domain("shapes")


def drawn(model: UnifiedModel, prompts: list[Prompt], guidance: float) -> list[bool]:
    """Whether the checker accepts each draw."""
    seeds = list(range(SEED, SEED + len(prompts)))
    return alignment(model, DOMAIN, prompts, seeds, Sampling(guidance), 256).passed


def diversity(model: UnifiedModel) -> float:
    """Diversity of eight samples for each of some held-out prompts."""
    prompts = DOMAIN.prompts("heldout", DIVERSE, SEED)
    seeds = [[SEED + 8 * p + s for s in range(8)] for p in range(DIVERSE)]
    return prompt_diversity(model, [prompt.text for prompt in prompts], seeds, Sampling(DEFAULT_GUIDANCE))


def show(interval: Interval) -> str:
    """Points with an interval."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def main(run_dirs: list[Path]) -> None:
    """Print one row a run and the pooled gains."""
    base = load("v0001", run_dirs[0])[1]
    train, heldout = DOMAIN.prompts("train", SWEEP, SEED), DOMAIN.prompts("heldout", HELDOUT, SEED) * DRAWS
    sweep = {g: float(np.mean(drawn(base, train, g))) for g in GUIDANCES}
    best = max(sweep, key=lambda g: sweep[g])
    print("base on train prompts: " + ", ".join(f"guidance {g:g}: {100 * v:.1f}" for g, v in sweep.items()))
    base_default, base_best = (drawn(base, heldout, g) for g in (DEFAULT_GUIDANCE, best))
    base_read, base_diversity = np.mean(understanding(base, DOMAIN, PROBES, SEED)), diversity(base)
    print(f"base: guidance {DEFAULT_GUIDANCE:g}: {100 * np.mean(base_default):.1f}, ", end="")
    print(f"guidance {best:g} (its best): {100 * np.mean(base_best):.1f}, ", end="")
    print(f"understanding {100 * base_read:.1f}, diversity {base_diversity:.3f}\n")
    print("| run | active | held-out | gain | gain over the base's best | understanding | diversity, share of base |")
    print("|---|---|---|---|---|---|---|")
    pooled: list[bool] = []
    for run_dir in run_dirs:
        name, model = load(None, run_dir)
        passed = drawn(model, heldout, DEFAULT_GUIDANCE)
        pooled += passed
        read, share = np.mean(understanding(model, DOMAIN, PROBES, SEED)), diversity(model) / base_diversity
        gains = " | ".join(show(paired_bootstrap(before, passed)) for before in (base_default, base_best))
        print(f"| {run_dir.name} | {name} | {100 * np.mean(passed):.1f} | {gains} | {100 * read:.1f} | {share:.2f} |")
    for label, before in (("at the same guidance", base_default), ("over the base's best", base_best)):
        print(f"\nmean gain {label}: {show(paired_bootstrap(before * len(run_dirs), pooled))}", end="")
    print()


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
