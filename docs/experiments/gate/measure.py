"""How often the gate promotes what is no better than its parent, and what is better by some points.

    python docs/experiments/gate/measure.py POOL.npz [TRIALS]

A trial deals parent and candidate from the pool of draw.py and lets the gate of this repository decide, look by look,
with the default settings. Equal in distribution: both are passes of the base. Better by exactly g points: each prompt's
outcome comes from a pass of the better version with the chance at which the mean gain is g. In a run, parent and
candidate draw with the same noise, so their outcomes go together: a share of the candidate's outcomes comes from the
parent's own pass, so large that equals differ by as much as they do in runs. With other noise they differ more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from illume_loop.evals.statistics import paired_bootstrap, wilson_interval
from illume_loop.loop.gate_plans import look_sizes
from illume_loop.loop.stages.gate import Measured, judge
from illume_loop.settings import GateSettings

Outcomes = NDArray[np.bool_]
Pair = tuple[Outcomes, Outcomes]
TRIALS = 3000
GAINS = (0.025, 0.05, 0.10)
MIN_GAINS = (0.0, 0.01, 0.02, 0.03)
ROUNDS = 3
ERROR_IN_RUNS = 0.0165
"""Standard error of the gain at 512 prompts in gates of runs (median of ten candidates about as good as parents)."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Outcomes of two models, each (passes, prompts), with the same noise in the same pass."""

    base: Outcomes
    better: Outcomes

    @property
    def gain(self) -> float:
        """By how much the better one is better."""
        return float(self.better.mean() - self.base.mean())

    @property
    def error(self) -> float:
        """Standard error of the gain of an equal with other noise."""
        num_passes, num_prompts = self.base.shape
        share = self.base.mean(axis=0)
        # p (1 - p) without the bias of few passes; twice, for the parent's noise and the candidate's.
        return float(np.sqrt(2 * (share * (1 - share)).mean() * num_passes / (num_passes - 1) / num_prompts))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said, and after how many prompts."""

    promoted: bool
    num_prompts: int


def sequential(pair: Pair, settings: GateSettings, seed: int) -> Verdict:
    """Return the decision of the present gate."""
    before, after = pair
    for size in look_sizes(settings):
        parent, candidate = (Measured(outcomes[:size].tolist(), [True], 1.0) for outcomes in (before, after))
        judgement = judge(Measured([], [True], 1.0), parent, candidate, settings, seed)
        if judgement is not None:
            return Verdict(judgement.passed, size)
    raise AssertionError("the last look decides")


def once(pair: Pair, settings: GateSettings, seed: int) -> Verdict:
    """Return the decision of the earlier gate: one percentile interval over all prompts."""
    before, after = (outcomes.tolist() for outcomes in pair)
    gain = paired_bootstrap(before, after, confidence=settings.confidence, resamples=settings.resamples, seed=seed)
    return Verdict(gain.low > settings.min_gain, gain.n)


def every_look(pair: Pair, settings: GateSettings, seed: int) -> Verdict:
    """Return the decision of a wrong gate: that interval at each look, with promotion at the first that is above."""
    for size in look_sizes(settings):
        verdict = once((pair[0][:size], pair[1][:size]), settings, seed)
        if verdict.promoted:
            return verdict
    return verdict


def deal(pool: Pool, gain: float, trials: int, *, kept: float) -> Iterator[Pair]:
    """Pairs whose outcomes are dealt prompt by prompt; a share `kept` of the candidate's has the parent's noise."""
    generator = np.random.default_rng(1)
    num_passes, num_prompts = pool.base.shape
    columns = np.arange(num_prompts)
    share = gain / pool.gain
    for _ in range(trials):
        first = generator.integers(0, num_passes, num_prompts)
        other = (first + generator.integers(1, num_passes, num_prompts)) % num_passes
        second = np.where(generator.random(num_prompts) < kept, first, other)
        from_better = generator.random(num_prompts) < share
        after = np.where(from_better, pool.better[second, columns], pool.base[second, columns])
        yield _shuffled(pool.base[first, columns], after, generator)


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


def over_rounds(base: Outcomes, *, fresh: bool, trials: int) -> None:
    """Simulate runs of equal candidates, with the parent's draw kept or drawn anew, and print the promotions."""
    generator = np.random.default_rng(2)
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
    once, twice = (100 * np.mean([count >= number for count in counts]) for number in (1, 2))
    kind = "drawn anew" if fresh else "kept"
    print(f"| {kind} | {trials} | {100 * rate:.1f} % | {once:.1f} % | {twice:.2f} % |", flush=True)


def main(path: Path, trials: int) -> None:
    """Print the tables of README.md in this folder."""
    found = np.load(path)
    pool = Pool(found["base"], found["better"])
    settings = GateSettings()
    as_in_runs = 1 - (ERROR_IN_RUNS / pool.error) ** 2
    print(f"{len(pool.base)} passes; base {100 * pool.base.mean():.1f}, better by {100 * pool.gain:.1f}")
    print(f"standard error of equals with other noise: {100 * pool.error:.2f} points; kept noise {as_in_runs:.2f}")
    head = "| candidate | trials | promoted | prompts, mean | decided at look, % |\n|---|---|---|---|---|"
    print(f"\nwhole passes\n{head}")
    row("equal", whole_passes(pool.base, np.random.default_rng(0)), settings)
    for noise, kept in (("as in a run", as_in_runs), ("other", 0.0)):
        print(f"\nnoise: {noise}\n{head}")
        for gain in (0.0, *GAINS, pool.gain):
            row(_name(gain), deal(pool, gain, trials, kept=kept), settings)
        for name, gate in (("one look, percentiles", once), ("percentiles at each look", every_look)):
            for gain in (0.0, 0.05):
                row(f"{name}: {_name(gain)}", deal(pool, gain, trials, kept=kept), settings, gate)
        print(f"\ngate.min_gain, noise: {noise}\n{head}")
        for min_gain in MIN_GAINS:
            changed = settings.model_copy(update={"min_gain": min_gain})
            for gain in (0.0, 0.025, 0.05):
                row(f"min_gain {min_gain:g}: {_name(gain)}", deal(pool, gain, trials, kept=kept), changed)
    print("\n| parent's draw | runs of 3 rounds | a round | a run, once | a run, twice |")
    print("|---|---|---|---|---|")
    for fresh in (False, True):
        over_rounds(pool.base, fresh=fresh, trials=2 * trials)


def _name(gain: float) -> str:
    return f"better by {100 * gain:.1f}" if gain else "equal"


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else TRIALS)
