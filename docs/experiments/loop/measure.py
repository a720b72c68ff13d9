"""Measures finished runs on fresh seeds and prints the tables of README.md in this folder.

    python docs/experiments/loop/measure.py RUN_DIR[:VERSION] ...

Each run's base and its active version (or the one named, e.g. `shuffled-0:v0002`) draw the same 512 held-out prompts
twice, with the same noise, which no gate has drawn. The mean gain over runs has two intervals: one resamples (run,
draw) pairs; the other is Student's t over the runs' own gains, and so includes what training with another seed would
change. The base's own best guidance is swept on train prompts.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student

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


def over_runs(gains: list[float]) -> str:
    """Student's t interval of the mean over runs."""
    if len(gains) < 2:
        return "one run"
    mean = float(np.mean(gains))
    half = float(student.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5)
    return show(Interval(mean, mean - half, mean + half, len(gains)))


def main(runs: list[str]) -> None:
    """Print one row a run and the mean gains over the runs."""
    base = load("v0001", Path(runs[0].partition(":")[0]))[1]
    train, heldout = DOMAIN.prompts("train", SWEEP, SEED), DOMAIN.prompts("heldout", HELDOUT, SEED) * DRAWS
    sweep = {g: float(np.mean(drawn(base, train, g))) for g in GUIDANCES}
    best = max(sweep, key=lambda g: sweep[g])
    print("base on train prompts: " + ", ".join(f"guidance {g:g}: {100 * v:.1f}" for g, v in sweep.items()))
    guidances = (DEFAULT_GUIDANCE, 1.0, best)
    of_base = [drawn(base, heldout, g) for g in guidances]
    shares = (f"guidance {g:g}: {100 * np.mean(v):.1f}" for g, v in zip(guidances, of_base, strict=True))
    print("base on held-out prompts: " + ", ".join(shares))
    base_read, base_diversity = np.mean(understanding(base, DOMAIN, PROBES, SEED)), diversity(base)
    print(f"base: understanding {100 * base_read:.1f}, diversity {base_diversity:.3f}; its best guidance is {best:g}\n")
    print("| run | version | held-out | gain | gain at guidance 1 | gain over the base's best | reads | diversity |")
    print("|---|---|---|---|---|---|---|---|")
    kinds = ("at the same guidance", "at guidance 1", "over the base's best")
    before = dict(zip(kinds, of_base, strict=True))
    after: dict[str, list[list[bool]]] = {kind: [] for kind in kinds}
    for run in runs:
        run_dir, _, version = run.partition(":")
        name, model = load(version or None, Path(run_dir))
        passed = drawn(model, heldout, DEFAULT_GUIDANCE)
        for kind, found in zip(kinds, (passed, drawn(model, heldout, 1.0), passed), strict=True):
            after[kind].append(found)
        read, share = np.mean(understanding(model, DOMAIN, PROBES, SEED)), diversity(model) / base_diversity
        gains = " | ".join(show(paired_bootstrap(before[kind], after[kind][-1])) for kind in kinds)
        row = f"{Path(run_dir).name} | {name} | {100 * np.mean(passed):.1f} | {gains} | {100 * read:.1f} | {share:.2f}"
        print(f"| {row} |", flush=True)
    print()
    for kind in kinds:
        pooled = paired_bootstrap(before[kind] * len(runs), [passed for found in after[kind] for passed in found])
        means = [float(np.mean(found) - np.mean(before[kind])) for found in after[kind]]
        print(f"mean gain {kind}: {show(pooled)} over draws, {over_runs(means)} over runs")


if __name__ == "__main__":
    main(sys.argv[1:])
