"""What each reading alone is worth, on own draws of a base: PYTHONPATH=. python readings.py BASE [PROMPTS] [SEED].

The draws are those of `illume-loop judge fit --guidance 1 --seed SEED`; each reading is calibrated by itself, and
measured on prompts that it was not fitted on.
"""

from __future__ import annotations

import sys

from illume_loop.artifacts.checkpoints import checkpoint_sha256
from illume_loop.domains import get_domain
from illume_loop.judge.calibration import Source
from illume_loop.judge.fitting import Labelled, checker_labels, draw_set, fit_calibration, read_set
from illume_loop.loop.opening import base_path
from illume_loop.models.registry import load_model

SAMPLES = 4


def main(base: str, prompts: int = 192, seed: int = 7) -> None:
    """Print a table row for each reading."""
    domain, path = get_domain("shapes"), base_path(base)
    model = load_model(path, device="cpu")
    shown = draw_set(model, domain, num_prompts=prompts, samples_per_prompt=SAMPLES, seed=seed, guidance_scale=1.0)
    reads, labels = read_set(model, domain, shown), checker_labels(domain)(shown)
    source = Source(judge=checkpoint_sha256(path), domain=domain.name, labels="checker", seed=seed, guidance_scale=1.0)
    for name in sorted(reads[0].readings):
        rows = [
            Labelled(one.prompt.key, {name: read.readings[name]}, bool(label.right))
            for one, read, label in zip(shown, reads, labels, strict=True)
        ]
        found = fit_calibration(source, rows, {}, [name]).overall.reliability
        print(f"| {base} | {name} | {found.n} | {found.auc:.3f} | {found.brier:.3f} | {found.ece:.3f} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
