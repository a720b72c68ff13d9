"""Draws the pool that measure.py in this folder resamples: many passes of two models over the held-out prompts.

    python docs/experiments/gate/draw.py POOL.npz RUN_DIR:VERSION [PASSES]

In each pass the base of the run (v0001) and a version of it, which is to be better, draw the default 512 held-out
prompts with the same noise, as the gate has it. The pool is written after each pass; a call goes on where it ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from illume_loop.cli.loading import load
from illume_loop.domains import get_domain
from illume_loop.evals.suites import alignment
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import Sampling
from illume_loop.settings import GateSettings

PASSES = 32
GUIDANCE = 1.5
"""What the gate compared at when the pool was drawn; outcomes are all that it looks at."""
DOMAIN = get_domain("shapes")
PROMPTS = DOMAIN.prompts("heldout", GateSettings().heldout_prompts, 0)


def main(pool: Path, better: str, passes: int) -> None:
    """Draw what the pool lacks."""
    run_dir, _, version = better.partition(":")
    models = {"base": load("v0001", Path(run_dir))[1], "better": load(version or None, Path(run_dir))[1]}
    found = dict(np.load(pool)) if pool.exists() else {name: np.empty((0, len(PROMPTS)), bool) for name in models}
    for number in range(len(found["base"]), passes):
        seeds = [derived_seed("gate pool", number, prompt.text) for prompt in PROMPTS]
        for name, model in models.items():
            passed = alignment(model, DOMAIN, PROMPTS, seeds, Sampling(GUIDANCE), 256).passed
            found[name] = np.vstack([found[name], passed])
        np.savez_compressed(pool, **found)
        print(number, *(f"{name} {100 * found[name][-1].mean():.1f}" for name in models), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else PASSES)
