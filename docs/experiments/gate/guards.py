"""How often the guard of understanding fails an unchanged candidate, and how often it passes a true loss.

    python docs/experiments/gate/guards.py [--measure]

The chances are exact: summed over all numbers of lost and gained items that can happen, for versions whose outcomes
differ in a given share of items. `guard as it was` is the comparison of two shares with a margin of 2 points.
`--measure` reads 2,048 probes with the shipped base, and with three candidates trained on real pairs, which gives the
share of items that changes, the seconds, and the error of the diversity guard (a few minutes).
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import binom

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.evals.noninferiority import score_bound
from illume_loop.evals.suites import image_diversity, understanding
from illume_loop.loop.gate_plans import DIVERSITY_PROMPTS, DIVERSITY_SAMPLES
from illume_loop.models.registry import load_model
from illume_loop.models.shipped import shipped_base
from illume_loop.protocols import Sampling, UnifiedModel
from illume_loop.settings import GateSettings, TrainSettings

SHARES_CHANGED = (0.02, 0.04, 0.07, 0.10, 0.15)
LOSSES = (0.0, 0.02, 0.03, 0.04, 0.06)
PROBES = 2048
SEED = 0
Passes = Callable[[int, int], bool]


def chance_to_pass(passes: Passes, n: int, share_changed: float, loss: float) -> float:
    """Return the chance to pass of a version: this share of its items changes, and its share of right ones falls so."""
    share_changed = max(share_changed, loss)
    changed = np.arange(n + 1)
    chance = 0.0
    for count, weight in zip(changed, binom.pmf(changed, n, share_changed), strict=True):
        if weight > 1e-9:
            low, high = 0, count + 1  # more gains never fail what fewer pass
            while low < high:
                gained = (low + high) // 2
                low, high = (low, gained) if passes(int(count - gained), int(gained)) else (gained + 1, high)
            chance += weight * binom.sf(low - 1, count, (share_changed - loss) / 2 / share_changed)
    return float(chance)


def exact(name: str, passes: Passes, n: int) -> None:
    """Print one row for each share of items that changes."""
    for share in SHARES_CHANGED:
        cells = " | ".join(f"{100 * chance_to_pass(passes, n, share, loss):.1f} %" for loss in LOSSES)
        print(f"| {name} | {100 * share:.0f} % | {cells} |", flush=True)


def by_test(n: int, margin: float) -> Passes:
    """Return the decision of the present guard."""
    error = (1 - GateSettings().confidence) / 2
    return lambda lost, gained: score_bound(lost, gained, n, error) > -margin


def by_share(n: int, margin: float) -> Passes:
    """Return the decision of the earlier guard."""
    return lambda lost, gained: gained - lost >= -margin * n


def measure() -> None:
    """Print what versions of the shipped base read and draw, and by how much that differs."""
    domain = ShapesDomain()
    print("\n| version | right, % | changed, % | seconds of 1,024 | diversity | margin above 0.8, in standard errors |")
    print("| --- | --- | --- | --- | --- | --- |")
    base = _measured(load_model(shipped_base()), domain)
    _told("base", base, base)
    for seed in range(3):
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "candidate"
            _train(domain, out, seed)
            _told(f"candidate {seed}", _measured(load_model(out), domain), base)


def _train(domain: ShapesDomain, out: Path, seed: int) -> None:
    from illume_loop.protocols import DrawRow, LikelyRow, ReadRow
    from illume_loop.train.candidates import train_candidate

    pairs = domain.real_pairs(1024, 100 + seed)
    ids = load_model(shipped_base()).encode([pair.image for pair in pairs])
    drawn: list[LikelyRow] = [DrawRow(pair.caption, of_image) for pair, of_image in zip(pairs, ids, strict=True)]
    rows = [*drawn, *(ReadRow(pair.image, pair.caption) for pair in pairs)]
    train_candidate(shipped_base(), rows, out, TrainSettings(), seed, lambda *_: None)


def _measured(model: UnifiedModel, domain: ShapesDomain) -> tuple[list[bool], float, list[float]]:
    begun = time.monotonic()
    right = understanding(model, domain, PROBES, SEED)
    seconds = (time.monotonic() - begun) * 1024 / PROBES
    prompts = domain.prompts("train", DIVERSITY_PROMPTS, SEED)
    texts = [prompt.text for prompt in prompts for _ in range(DIVERSITY_SAMPLES)]
    images = model.decode(model.sample(texts, range(len(texts)), Sampling(GateSettings().guidance_scale)))
    starts = range(0, len(images), DIVERSITY_SAMPLES)
    return right, seconds, [image_diversity(images[start : start + DIVERSITY_SAMPLES]) for start in starts]


def _told(name: str, found: tuple[list[bool], float, list[float]], base: tuple[list[bool], float, list[float]]) -> None:
    right, seconds, diversity = found
    changed = np.mean(np.array(right) != np.array(base[0]))
    above = np.array(diversity) - GateSettings().diversity_ratio * np.array(base[2])
    errors = above.mean() / (above.std(ddof=1) / np.sqrt(len(above)))
    numbers = f"{100 * np.mean(right):.1f} | {100 * changed:.1f} | {seconds:.0f} | {np.mean(diversity):.4f}"
    print(f"| {name} | {numbers} | {errors:.1f} |", flush=True)


if __name__ == "__main__":
    print("| guard | items that change | " + " | ".join(f"loss {100 * loss:.0f}" for loss in LOSSES) + " |")
    print("| --- | --- |" + " --- |" * len(LOSSES))
    exact("as it was: 256 probes, share within 2 points", by_share(256, 0.02), 256)
    for probes, margin in ((1024, 0.04), (1024, 0.03), (2048, 0.03)):
        exact(f"{probes} probes, loss of {100 * margin:.0f} excluded", by_test(probes, margin), probes)
    if "--measure" in sys.argv[1:]:
        measure()
