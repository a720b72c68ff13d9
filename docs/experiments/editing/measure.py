"""How many held-out edits two models get right, with the same noise: PYTHONPATH=. python measure.py BASE AFTER [N].

BASE and AFTER are shipped names or checkpoint directories; N edits (512) at guidance 1 and 1.5.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import asdict
from functools import partial

from illume_loop.charts.numbers import gain, interval
from illume_loop.domains import get_domain
from illume_loop.evals.statistics import paired_bootstrap, wilson_interval
from illume_loop.evals.suites import editing
from illume_loop.loop.opening import base_path
from illume_loop.models.registry import load_model
from illume_loop.protocols import EditProbe, Sampling

SEED = 1_000
"""Of edits and noise: no run and no gate draws with it."""


def main(paths: list[str], count: int) -> None:
    """Print one line for each guidance and model, and one for the difference."""
    domain = get_domain("shapes")
    prompts = domain.edits("heldout", count, SEED)
    probes = [EditProbe(domain.source(p), p.instruction, p.category, partial(domain.check, prompt=p)) for p in prompts]
    models = [load_model(base_path(path), device="cpu") for path in paths]
    for guidance in (1.0, 1.5):
        found = [editing(model, probes, range(SEED, SEED + count), Sampling(guidance), 128) for model in models]
        for path, passed in zip(paths, found, strict=True):
            by_category = defaultdict(list)
            for probe, right in zip(probes, passed, strict=True):
                by_category[probe.category].append(right)
            parts = ", ".join(f"{name} {100 * sum(rows) / len(rows):.0f}" for name, rows in sorted(by_category.items()))
            print(f"guidance {guidance}: {path}: {interval(asdict(wilson_interval(passed)))} ({parts})")
        print(f"guidance {guidance}: gain {gain(asdict(paired_bootstrap(*found)))}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:3], int(sys.argv[3]) if len(sys.argv) > 3 else 512)
