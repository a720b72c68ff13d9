"""Measures finished runs on fresh seeds and prints the tables of README.md in this folder.

    python docs/experiments/loop/measure.py RUN_DIR[:VERSION] ...

Each run's base and its active version (or the one named, e.g. `shuffled-0:v0002`) draw the same 512 held-out prompts
twice, with the same noise, which no gate has drawn, at several guidances: what serves an untrained model best is not
what serves a trained one, so the last column compares each at the guidance at which it draws train prompts best. The
mean gain over runs has two intervals: one resamples (run, draw) pairs; the other is Student's t over the runs' own
gains, and so includes what training with another seed would change.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from illume_loop.cli.loading import load
from illume_loop.domains import get_domain
from illume_loop.evals.statistics import Interval, paired_bootstrap
from illume_loop.evals.suites import alignment, prompt_diversity, understanding
from illume_loop.protocols import Prompt, Sampling, UnifiedModel

HELDOUT, DRAWS, SWEEP, PROBES, DIVERSE = 512, 2, 256, 512, 64
GUIDANCES = (1.0, 1.25, 1.5, 2.0, 2.5)
DEFAULT_GUIDANCE = 1.25
COMPARED = (1.25, 1.0, 1.5)
"""The gate's guidance, none, and more."""
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


def best_guidance(model: UnifiedModel) -> float:
    """Return the guidance at which a model draws train prompts best, and print the sweep."""
    prompts = DOMAIN.prompts("train", SWEEP, SEED)
    sweep = {g: float(np.mean(drawn(model, prompts, g))) for g in GUIDANCES}
    print("train prompts: " + ", ".join(f"guidance {g:g}: {100 * v:.1f}" for g, v in sweep.items()), file=sys.stderr)
    return max(sweep, key=lambda g: sweep[g])


def main(runs: list[str]) -> None:
    """Print one row for the base, one a run, and the mean gains over the runs."""
    base = load("v0001", Path(runs[0].partition(":")[0]))[1]
    heldout = DOMAIN.prompts("heldout", HELDOUT, SEED) * DRAWS
    best = best_guidance(base)
    of_base = {g: drawn(base, heldout, g) for g in {*COMPARED, best}}
    base_read, base_diversity = np.mean(understanding(base, DOMAIN, PROBES, SEED)), diversity(base)
    print(
        "| run | version | "
        + " | ".join(f"guidance {g:g}" for g in COMPARED)
        + " | each at its best | reads | diversity |"
    )
    print("|---|---|" + "---|" * (len(COMPARED) + 3))
    shares = [f"{100 * np.mean(of_base[g]):.1f}" for g in COMPARED] + [f"{100 * np.mean(of_base[best]):.1f} ({best:g})"]
    print(f"| base | v0001 | {' | '.join(shares)} | {100 * base_read:.1f} | {base_diversity:.3f} |", flush=True)
    before = [of_base[g] for g in COMPARED] + [of_base[best]]
    after: list[list[list[bool]]] = [[] for _ in before]
    for run in runs:
        run_dir, _, version = run.partition(":")
        name, model = load(version or None, Path(run_dir))
        own = best_guidance(model)
        found = [drawn(model, heldout, g) for g in (*COMPARED, own)]
        cells = []
        for column, (old, new) in enumerate(zip(before, found, strict=True)):
            after[column].append(new)
            cells.append(f"{100 * np.mean(new):.1f}, {show(paired_bootstrap(old, new))}")
        cells[-1] += f" ({own:g})"
        read, share = np.mean(understanding(model, DOMAIN, PROBES, SEED)), diversity(model) / base_diversity
        print(f"| {Path(run_dir).name} | {name} | {' | '.join(cells)} | {100 * read:.1f} | {share:.2f} |", flush=True)
    print()
    for kind, old, found in zip(
        [f"at guidance {g:g}" for g in COMPARED] + ["each at its best"], before, after, strict=True
    ):
        pooled = paired_bootstrap(old * len(runs), [passed for draws in found for passed in draws])
        means = [float(np.mean(draws) - np.mean(old)) for draws in found]
        print(f"mean gain {kind}: {show(pooled)} over draws, {over_runs(means)} over runs")


if __name__ == "__main__":
    main(sys.argv[1:])
