"""Advantages of samples within their groups, and the choice of the prompts that a policy learns most from. Pure.

Shape suffixes: `_P` prompts, `_G` samples of a prompt (a group).

Invariants:

- A reward that failed or is not a finite number never counts as a value: its sample has no advantage, and the other
  samples of its group are compared without it.
- A group whose rewards are all equal, or that has fewer than two samples with all rewards, teaches nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

Rewards = NDArray[np.float64]

LEAST_SCORED = 2
"""The fewest samples with all rewards that make a group. A single sample has nothing to be compared with."""


@dataclass(frozen=True, slots=True)
class Advantages:
    """The advantages of the samples of an update.

    `values` (P, G) is NaN for a sample that is not learned from. `spreads` has, by scorer, the standard deviation of
    the rewards in each group (P,); it is NaN for a group with too few scores.
    """

    values: NDArray[np.float64]
    spreads: Mapping[str, NDArray[np.float64]]
    num_scored: NDArray[np.int64]
    """The number of samples (P,) of each group that have all rewards."""
    num_without_variance: int
    """The number of groups with enough scores, all of them equal."""
    num_with_too_few: int
    """The number of groups with fewer scores than `LEAST_SCORED`."""

    @property
    def learned(self) -> NDArray[np.bool_]:
        """A mask (P, G) of the samples that are learned from."""
        return np.isfinite(self.values)


def group_advantages(rewards: Mapping[str, Rewards], weights: Mapping[str, float], *, normalise: bool) -> Advantages:
    """Return the advantages of samples from their rewards (P, G) by each scorer; NaN is a reward that failed.

    Each scorer's rewards are centred within the group and, with `normalise`, divided by their standard deviation there
    (GRPO, arXiv 2402.03300). Then they are weighted and added. Without `normalise` this is the advantage of Dr. GRPO
    (arXiv 2503.20783); its other change, the length of an answer, makes no difference, as all images have one length.
    """
    stacked = np.stack([rewards[name] for name in weights])
    scored_PG = np.isfinite(stacked).all(axis=0)
    num_scored = scored_PG.sum(axis=1)
    enough_P = num_scored >= LEAST_SCORED
    values = np.zeros(scored_PG.shape)
    spreads = {}
    differs_P = np.zeros(len(enough_P), dtype=bool)
    for name, weight in weights.items():
        known = np.where(scored_PG, rewards[name], 0.0)
        # The first scored reward is subtracted before the mean, so that equal rewards differ from it by exactly zero.
        first = np.take_along_axis(known, scored_PG.argmax(axis=1)[:, None], axis=1)
        known = np.where(scored_PG, known - first, 0.0)
        count = np.maximum(num_scored, 1)[:, None]
        centred = np.where(scored_PG, known - known.sum(axis=1, keepdims=True) / count, 0.0)
        spread_P = np.sqrt((centred**2).sum(axis=1) / count[:, 0])
        spreads[name] = np.where(enough_P, spread_P, np.nan)
        differs_P |= spread_P > 0
        scale = np.where(spread_P > 0, spread_P, 1.0)[:, None] if normalise else 1.0
        values += weight * centred / scale
    kept = scored_PG & (enough_P & differs_P)[:, None]
    return Advantages(
        np.where(kept, values, np.nan),
        spreads,
        num_scored,
        int((enough_P & ~differs_P).sum()),
        int((~enough_P).sum()),
    )


def shuffled_in_groups(rewards: Mapping[str, Rewards], seed: int) -> dict[str, Rewards]:
    """Return the rewards (P, G) of each scorer, shuffled within each group: a control that must teach nothing.

    The scorers' rewards of one sample stay together.
    """
    some = next(iter(rewards.values()))
    orders = np.stack([Random(f"{seed}/{p}").sample(range(some.shape[1]), some.shape[1]) for p in range(len(some))])
    return {name: np.take_along_axis(of_scorer, orders, axis=1) for name, of_scorer in rewards.items()}


@dataclass(frozen=True, slots=True)
class DrawnGroup:
    """An earlier group: the prompt's text and category, and the spread of its rewards by scorer."""

    text: str
    category: str
    spreads: Mapping[str, float]


def choose_prompts(
    prompts: Sequence[tuple[str, str]],
    earlier: Sequence[DrawnGroup],
    weights: Mapping[str, float],
    count: int,
    floor: float,
    seed: int,
) -> list[int]:
    """Return the places of `count` different prompts, each given as (text, category).

    A prompt's chance is `floor` times an even share, plus the rest in proportion to how much the rewards of earlier
    groups differed: those of the prompt itself, else of its category, else of all. Spreads are relative to the mean of
    their scorer, so that scorers of any unit can be added. The choice follows from the arguments alone.
    """
    interest = _interest(prompts, earlier, weights)
    even, total = 1.0 / len(prompts), sum(interest)
    chances = [floor * even + (1.0 - floor) * (one / total if total > 0 else even) for one in interest]
    # Drawing without replacement by exponential keys (Efraimidis and Spirakis 2006). A chance of 0 comes last.
    keys = [
        (-math.log(1.0 - Random(f"{seed}/{text}").random()) / chance if chance > 0 else math.inf, place)
        for place, ((text, _), chance) in enumerate(zip(prompts, chances, strict=True))
    ]
    return [place for _, place in sorted(keys)[:count]]


def _interest(
    prompts: Sequence[tuple[str, str]], earlier: Sequence[DrawnGroup], weights: Mapping[str, float]
) -> list[float]:
    """Return how much the rewards of each prompt are expected to differ; 1 is the mean of earlier groups."""
    means = {name: _mean([group.spreads[name] for group in earlier]) for name in weights}
    by_text: dict[str, list[float]] = {}
    by_category: dict[str, list[float]] = {}
    for group in earlier:
        parts = [weight * group.spreads[name] / means[name] for name, weight in weights.items() if means[name] > 0]
        relative = sum(parts) / sum(weights.values())
        by_text.setdefault(group.text, []).append(relative)
        by_category.setdefault(group.category, []).append(relative)
    return [_mean(by_text.get(text) or by_category.get(category) or [1.0]) for text, category in prompts]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
