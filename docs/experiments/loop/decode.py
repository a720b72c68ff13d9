"""Measure how much of a run's gain better decode settings give without training; print a table of README.md here.

    python docs/experiments/loop/decode.py RUN_DIR[:VERSION]

The base and the active version of a run (or the one named) draw the same held-out prompts with the same noise, first at
the gate's guidance and temperature 1, then each at the guidance and temperature at which it draws train prompts best.
The second comparison is the one that counts for somebody who may choose the decode settings.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import product
from pathlib import Path

import numpy as np

from illume_loop.charts.numbers import gain
from illume_loop.cli.loading import load
from illume_loop.domains import get_domain
from illume_loop.evals.statistics import paired_bootstrap
from illume_loop.evals.suites import alignment
from illume_loop.protocols import Prompt, Sampling, UnifiedModel

HELDOUT, DRAWS, SWEEP = 512, 2, 256
GUIDANCES, TEMPERATURES = (1.0, 1.25, 1.5, 2.0, 2.5), (1.0, 0.8, 0.6, 0.4)
GATE = Sampling(guidance_scale=1.25)
SEED = 20_000
DOMAIN = get_domain("shapes")


def drawn(model: UnifiedModel, prompts: list[Prompt], decode: Sampling) -> list[bool]:
    """Return whether the checker accepts each draw."""
    return alignment(model, DOMAIN, prompts, list(range(SEED, SEED + len(prompts))), decode, 256).passed


def best_decode(name: str, model: UnifiedModel) -> Sampling:
    """Return the decode at which a model draws train prompts best; print the whole sweep to stderr."""
    prompts = DOMAIN.prompts("train", SWEEP, SEED)
    sweep = {}
    for guidance, temperature in product(GUIDANCES, TEMPERATURES):
        decode = Sampling(guidance_scale=guidance, temperature=temperature)
        sweep[decode] = float(np.mean(drawn(model, prompts, decode)))
        told = f"guidance {guidance:g}, temperature {temperature:g}"
        print(f"{name}, train prompts, {told}: {100 * sweep[decode]:.1f}", file=sys.stderr, flush=True)
    return max(sweep, key=lambda decode: sweep[decode])


def main(run: str) -> None:
    """Print one row for each comparison."""
    run_dir, _, version = run.partition(":")
    (_, base), (name, trained) = load("v0001", Path(run_dir)), load(version or None, Path(run_dir))
    heldout = DOMAIN.prompts("heldout", HELDOUT, SEED) * DRAWS
    of_base, of_trained = best_decode("v0001", base), best_decode(name, trained)
    print(f"| decode | v0001 | {name} | gain |\n|---|---|---|---|")
    for told, old, new in (("the gate's, for both", GATE, GATE), ("each model's own best", of_base, of_trained)):
        before, after = drawn(base, heldout, old), drawn(trained, heldout, new)
        shares = [
            f"{100 * np.mean(found):.1f} (guidance {decode.guidance_scale:g}, temperature {decode.temperature:g})"
            for found, decode in ((before, old), (after, new))
        ]
        print(f"| {told} | {' | '.join(shares)} | {gain(asdict(paired_bootstrap(before, after)))} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python docs/experiments/loop/decode.py RUN_DIR[:VERSION]")
    main(sys.argv[1])
