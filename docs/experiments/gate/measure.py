"""How often the gate promotes what is no better than its parent, and what is better by some points.

    python docs/experiments/gate/measure.py POOL.npz [TRIALS]

A trial deals parent and candidate from the pool of draw.py and lets the gate of this repository decide, look by look,
with the default settings. Equal in distribution: both are passes of the base. Better by exactly g points: each prompt's
outcome comes from a pass of the better version with the chance at which the mean gain is g. Parent and candidate come
from different passes, so their noise is independent; drawn with the same noise, as in a run, they differ less.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from illume_loop.config import GateSettings
from illume_loop.evals.statistics import paired_bootstrap, wilson_interval
from illume_loop.loop.gate import Measured, judge, look_sizes

Outcomes = NDArray[np.bool_]
Pair = tuple[Outcomes, Outcomes]
TRIALS = 1000
MIN_GAINS = (0.0, 0.01, 0.02, 0.03)
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said, and after how many prompts."""

    promoted: bool
    num_prompts: int


def sequential(pair: Pair, settings: GateSettings, seed: int) -> Verdict:
    """The gate as it is."""
    before, after = pair
    for size in look_sizes(settings):
        parent, candidate = (Measured(outcomes[:size].tolist(), 1.0, 1.0) for outcomes in (before, after))
        judgement = judge(Measured([], 1.0, 1.0), parent, candidate, settings, seed)
        if judgement is not None:
            return Verdict(judgement.passed, size)
    raise AssertionError("the last look decides")


def once(pair: Pair, settings: GateSettings, seed: int) -> Verdict:
    """The gate as it was: one percentile interval over all prompts."""
    gain = paired_bootstrap(*pair, confidence=settings.confidence, resamples=settings.resamples, seed=seed)
    return Verdict(gain.low > settings.min_gain, gain.n)


def every_look(pair: Pair, settings: GateSettings, seed: int) -> Verdict:
    """What must not be done: that interval at each look, with promotion at the first that is above."""
    for size in look_sizes(settings):
        verdict = once((pair[0][:size], pair[1][:size]), settings, seed)
        if verdict.promoted:
            return verdict
    return verdict


def deal(base: Outcomes, better: Outcomes, gain: float, generator: np.random.Generator, trials: int) -> Iterator[Pair]:
    """Pairs whose outcomes are dealt prompt by prompt from different passes."""
    num_passes, num_prompts = base.shape
    columns = np.arange(num_prompts)
    share = gain / float(better.mean() - base.mean())
    for _ in range(trials):
        first = generator.integers(0, num_passes, num_prompts)
        second = (first + generator.integers(1, num_passes, num_prompts)) % num_passes
        from_better = generator.random(num_prompts) < share
        after = np.where(from_better, better[second, columns], base[second, columns])
        yield _shuffled(base[first, columns], after, generator)


def same_noise(
    base: Outcomes, better: Outcomes, gain: float, generator: np.random.Generator, trials: int
) -> Iterator[Pair]:
    """As `deal`, but what comes from the better version has the parent's noise, and the rest is the parent's own."""
    num_passes, num_prompts = base.shape
    columns = np.arange(num_prompts)
    share = gain / float(better.mean() - base.mean())
    for _ in range(trials):
        first = generator.integers(0, num_passes, num_prompts)
        from_better = generator.random(num_prompts) < share
        after = np.where(from_better, better[first, columns], base[first, columns])
        yield _shuffled(base[first, columns], after, generator)


def whole_passes(base: Outcomes, generator: np.random.Generator) -> Iterator[Pair]:
    """Every pass against every later one, the parent chosen by lot."""
    for first, second in combinations(range(len(base)), 2):
        pair = (base[first], base[second]) if generator.random() < 0.5 else (base[second], base[first])
        yield _shuffled(*pair, generator)


def _shuffled(before: Outcomes, after: Outcomes, generator: np.random.Generator) -> Pair:
    order = generator.permutation(len(before))
    return before[order], after[order]


def row(
    name: str,
    pairs: Iterable[Pair],
    settings: GateSettings,
    gate: Callable[[Pair, GateSettings, int], Verdict] = sequential,
) -> None:
    """Print one row of the table."""
    verdicts = [gate(pair, settings, seed) for seed, pair in enumerate(pairs)]
    rate = wilson_interval([verdict.promoted for verdict in verdicts])
    sizes = [verdict.num_prompts for verdict in verdicts]
    shares = " / ".join(f"{100 * np.mean([size == look for size in sizes]):.0f}" for look in look_sizes(settings))
    numbers = f"{100 * rate.mean:.1f} % [{100 * rate.low:.1f}, {100 * rate.high:.1f}] | {np.mean(sizes):.0f} | {shares}"
    print(f"| {name} | {len(verdicts)} | {numbers} |", flush=True)


def over_rounds(base: Outcomes, generator: np.random.Generator, *, fresh: bool, trials: int) -> None:
    """A run of equal candidates: how many promotions, with the parent's draw kept over the rounds or drawn anew."""
    settings = GateSettings(resamples=200)
    counts = []
    for trial in range(trials):
        passes = iter(generator.permutation(len(base)))
        parent = next(passes)
        promoted = 0
        for _ in range(ROUNDS):
            parent = next(passes) if fresh else parent
            candidate = next(passes)
            pair = _shuffled(base[parent], base[candidate], generator)
            if sequential(pair, settings, trial).promoted:
                promoted += 1
                parent = candidate
        counts.append(promoted)
    rate = np.mean(counts) / ROUNDS
    runs = {number: np.mean([count >= number for count in counts]) for number in (1, 2)}
    after = runs[2] / runs[1] if runs[1] else 0.0
    kind = "drawn anew" if fresh else "kept"
    print(f"| {kind} | {trials} | {100 * rate:.1f} % | {100 * runs[1]:.1f} % | {100 * runs[2]:.2f} % | {after:.2f} |")


def main(path: Path, trials: int) -> None:
    """Print the tables of README.md in this folder."""
    pool = np.load(path)
    base, better = pool["base"], pool["better"]
    settings = GateSettings()
    print(f"{len(base)} passes; base {100 * base.mean():.1f}, better {100 * better.mean():.1f}")
    own, other = (100 * np.std((better - 1.0 * of).mean(axis=1), ddof=1) for of in (base, np.roll(base, 1, axis=0)))
    print(f"standard error of the gain: {own:.2f} points with the same noise, {other:.2f} with other noise\n")
    head = "| candidate | trials | promoted | prompts, mean | decided at look, % |\n|---|---|---|---|---|"
    print(head)
    row("equal, whole passes", whole_passes(base, np.random.default_rng(0)), settings)
    for gain in (0.0, 0.025, 0.05, 0.10, float(better.mean() - base.mean())):
        name = f"better by {100 * gain:.1f}" if gain else "equal"
        row(name, deal(base, better, gain, np.random.default_rng(1), trials), settings)
    twice = settings.model_copy(update={"heldout_prompts": 2 * settings.heldout_prompts})
    for gain in (0.0, 0.05):
        pairs = deal(np.tile(base, 2), np.tile(better, 2), gain, np.random.default_rng(1), trials)
        row(f"{'better by 5.0' if gain else 'equal'}, twice the prompts", pairs, twice)
    row("better by 5.0, same noise", same_noise(base, better, 0.05, np.random.default_rng(1), trials), settings)
    print(f"\nother gates\n{head}")
    for name, gate in (("one look, percentiles", once), ("percentiles at each look", every_look)):
        for gain in (0.0, 0.05):
            pairs = deal(base, better, gain, np.random.default_rng(1), trials)
            row(f"{name}: {'better by 5.0' if gain else 'equal'}", pairs, settings, gate)
    print(f"\ngate.min_gain\n{head}")
    for min_gain in MIN_GAINS:
        for gain in (0.0, 0.025, 0.05):
            pairs = deal(base, better, gain, np.random.default_rng(1), trials)
            changed = settings.model_copy(update={"min_gain": min_gain})
            row(f"min_gain {min_gain:g}: {f'better by {100 * gain:.1f}' if gain else 'equal'}", pairs, changed)
    print("\n| parent's draw | runs of 3 rounds | a round | a run, once | twice | twice, given once |")
    print("|---|---|---|---|---|---|")
    for fresh in (False, True):
        over_rounds(base, np.random.default_rng(2), fresh=fresh, trials=2 * trials)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else TRIALS)
