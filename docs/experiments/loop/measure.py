"""Measure finished runs on fresh seeds and print the tables of README.md in this folder.

    python docs/experiments/loop/measure.py RUN_DIR[:VERSION] ...

Each run's base and its active version (or the one named, such as `shuffled-0:v0002`) draw the same 512 held-out prompts
with the same noise, which no gate has drawn. They are compared at the run's setting, with each model at the decode at
which it draws 256 train prompts best, and with each at the decode at which it draws these held-out prompts best. The
last comparison is the hardest one, because the base's decode is chosen by the draws that are compared.

The mean gain over runs has two intervals: one resamples (run, draw) pairs; the other is Student's t over the runs' own
gains, and so includes what training with another seed would change.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from illume_loop.cli.loading import load
from illume_loop.domains import get_domain
from illume_loop.evals.statistics import Interval, paired_bootstrap
from illume_loop.evals.suites import alignment, prompt_diversity, understanding
from illume_loop.protocols import Prompt, Sampling, UnifiedModel
from illume_loop.settings import Settings

HELDOUT, SWEEP, PROBES, DIVERSE = 512, 256, 512, 64
SEED = 20_000
DOMAIN = get_domain("shapes")
SETTING = Sampling(Settings().gate.guidance_scale, Settings().sampling.temperature)
GRID = [Sampling(*decode) for decode in product((1.0, 1.25, 1.5, 2.0, 2.5), (1.0, 0.7, 0.5, 0.4))]
COMPARISONS = ("at the run's setting", "best on train prompts", "best on held-out prompts")


@dataclass(frozen=True, slots=True)
class Measured:
    """Measurements of one model: its draws in each comparison with their decodes, what it reads, and its diversity."""

    drawn: tuple[list[bool], ...]
    decodes: tuple[Sampling, ...]
    reads: float
    diversity: float


def drawn(model: UnifiedModel, prompts: list[Prompt], decode: Sampling) -> list[bool]:
    """Return whether the checker accepts each draw."""
    return alignment(model, DOMAIN, prompts, list(range(SEED, SEED + len(prompts))), decode, 256).passed


def measure(name: str, model: UnifiedModel) -> Measured:
    """Measure one model."""
    heldout, train = (DOMAIN.prompts(split, n, SEED) for split, n in (("heldout", HELDOUT), ("train", SWEEP)))
    on_train = {decode: sum(drawn(model, train, decode)) for decode in GRID}
    on_heldout = {decode: drawn(model, heldout, decode) for decode in {*GRID, SETTING}}
    decodes = (SETTING, max(GRID, key=lambda d: on_train[d]), max(GRID, key=lambda d: sum(on_heldout[d])))
    for decode in GRID:
        shares = f"train {100 * on_train[decode] / SWEEP:.1f}, held-out {100 * np.mean(on_heldout[decode]):.1f}"
        print(f"{name} at {told(decode)}: {shares}", file=sys.stderr, flush=True)
    texts = [prompt.text for prompt in DOMAIN.prompts("heldout", DIVERSE, SEED)]
    seeds = [[SEED + 8 * p + s for s in range(8)] for p in range(DIVERSE)]
    reads = float(np.mean(understanding(model, DOMAIN, PROBES, SEED)))
    found = tuple(on_heldout[decode] for decode in decodes)
    return Measured(found, decodes, reads, prompt_diversity(model, texts, seeds, SETTING))


def told(decode: Sampling) -> str:
    """Return guidance and temperature."""
    return f"{decode.guidance_scale:g} / {decode.temperature:g}"


def show(interval: Interval) -> str:
    """Return points with an interval."""
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def over_runs(gains: list[float]) -> str:
    """Return Student's t interval of the mean over runs."""
    if len(gains) < 2:
        return "one run"
    mean = float(np.mean(gains))
    half = float(student.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5)
    return show(Interval(mean, mean - half, mean + half, len(gains)))


def main(runs: list[str]) -> None:
    """Print one row for the base, one for each run, and the mean gains over the runs."""
    base = measure("base", load("v0001", Path(runs[0].partition(":")[0]))[1])
    print(f"| run | version | {' | '.join(COMPARISONS)} | reads | diversity |\n|---|---|---|---|---|---|---|")
    shares = [f"{100 * np.mean(d):.1f} ({told(s)})" for d, s in zip(base.drawn, base.decodes, strict=True)]
    print(f"| base | v0001 | {' | '.join(shares)} | {100 * base.reads:.1f} | {base.diversity:.3f} |", flush=True)
    after = []
    for run in runs:
        run_dir, _, version = run.partition(":")
        name, model = load(version or None, Path(run_dir))
        after.append(found := measure(f"{Path(run_dir).name} {name}", model))
        cells = [
            f"{100 * np.mean(new):.1f} ({told(decode)}), {show(paired_bootstrap(old, new))}"
            for old, new, decode in zip(base.drawn, found.drawn, found.decodes, strict=True)
        ]
        share = found.diversity / base.diversity
        row = f"| {Path(run_dir).name} | {name} | {' | '.join(cells)} | {100 * found.reads:.1f} | {share:.2f} |"
        print(row, flush=True)
    print()
    for column, kind in enumerate(COMPARISONS):
        old = base.drawn[column]
        pooled = paired_bootstrap(old * len(runs), [right for found in after for right in found.drawn[column]])
        means = [float(np.mean(found.drawn[column]) - np.mean(old)) for found in after]
        print(f"mean gain {kind}: {show(pooled)} over draws, {over_runs(means)} over runs")


if __name__ == "__main__":
    main(sys.argv[1:])
