"""Intervals and agreement, in NumPy and SciPy. Every function is deterministic: resampling takes a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from scipy.stats import t as student

RESAMPLES_AT_ONCE = 256
"""The resamples of one block; blocks keep the bootstrap's matrix of counts small."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its confidence interval, over `n` items."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class SeedsEstimate:
    """A mean over seeds. The intervals are (low, high) at 95 %, or None."""

    mean: float
    draws: tuple[float, float] | None
    seeds: tuple[float, float] | None
    by_seed: tuple[float, ...]


def share(outcomes: Sequence[bool]) -> float:
    """Return the share of true outcomes."""
    return sum(outcomes) / len(outcomes)


def wilson_interval(outcomes: Sequence[bool], confidence: float = 0.95) -> Interval:
    """Return the share of true outcomes with Wilson's score interval, which stays within 0..1 (Wilson 1927).

    Raises ValueError if there are no outcomes.
    """
    n = len(outcomes)
    if n == 0:
        raise ValueError("a proportion needs at least one outcome")
    return _wilson(sum(outcomes) / n, n, n, confidence)


def clustered_interval(clusters: Sequence[Sequence[bool]], confidence: float = 0.95) -> Interval:
    """Return the share of true outcomes with an interval that allows for likeness within a cluster.

    `n` is the number of outcomes. A cluster holds those of the images of one prompt. The interval is Wilson's with the
    effective number of outcomes (Korn and Graubard 1998): the number of independent outcomes that would have the
    variance that the clusters show. It is at least one for each cluster, and exactly that if all outcomes are the same.
    Raises ValueError if there are no outcomes.
    """
    sizes, trues = (np.array([f(cluster) for cluster in clusters], dtype=np.float64) for f in (len, sum))
    n, k = int(sizes.sum()), len(clusters)
    if n == 0:
        raise ValueError("a proportion needs at least one outcome")
    share = float(trues.sum() / n)
    variance = float(((trues - share * sizes) ** 2).sum()) * k / max(k - 1, 1) / n**2
    effective = float(k)
    if 0 < share < 1:
        effective = min(max(share * (1 - share) / variance, k), n) if variance > 0 else float(n)
    return _wilson(share, effective, n, confidence)


def mean_of(parts: Sequence[Interval]) -> Interval:
    """Return the unweighted mean of independent estimates, its interval recovered from theirs (Zou and Donner 2008).

    Raises ValueError if there are no estimates.
    """
    if not parts:
        raise ValueError("a mean needs at least one estimate")
    mean = float(np.mean([part.mean for part in parts]))
    below = np.sqrt(sum((part.mean - part.low) ** 2 for part in parts)) / len(parts)
    above = np.sqrt(sum((part.high - part.mean) ** 2 for part in parts)) / len(parts)
    return Interval(mean, float(mean - below), float(mean + above), sum(part.n for part in parts))


def _wilson(share: float, effective: float, n: int, confidence: float) -> Interval:
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    center = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half_width = z * np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2)) / (1 + z**2 / effective)
    return Interval(share, max(0.0, float(center - half_width)), min(1.0, float(center + half_width)), n)


def student_interval(values: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """Return the mean of independent repetitions with Student's t interval (Gosset 1908); None for fewer than two."""
    n = len(values)
    if n < 2:
        return None
    mean = float(np.mean(values))
    half_width = float(student.ppf(0.5 + confidence / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half_width, mean + half_width, n)


def paired_bootstrap(
    before: Sequence[float],
    after: Sequence[float],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean of `after - before` with its percentile interval, by resampling pairs.

    The method is of Efron and Tibshirani 1993, chapter 13. Raises ValueError if the sequences cannot be paired.
    """
    differences = _differences(before, after)
    means = _resampled_means(differences, resamples, seed)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(float(differences.mean()), float(low), float(high), len(differences))


def paired_bootstrap_error(
    before: Sequence[float], after: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> float:
    """Return the bootstrap's standard error of the mean of `after - before`, by resampling pairs.

    The method is of Efron and Tibshirani 1993, chapter 6. Raises ValueError if the sequences cannot be paired.
    """
    return float(_resampled_means(_differences(before, after), resamples, seed).std(ddof=1))


def _differences(before: Sequence[float], after: Sequence[float]) -> NDArray[np.float64]:
    if len(before) != len(after) or len(before) == 0:
        raise ValueError(f"{len(before)} outcomes cannot be paired with {len(after)}")
    return np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)


def _resampled_means(differences: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    # It draws how often each value occurs. That equals drawing items, and is fast if there are few distinct values.
    values, counts = np.unique(differences, return_counts=True)
    means = np.empty(resamples)
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        stop = min(start + RESAMPLES_AT_ONCE, resamples)
        drawn = generator.multinomial(len(differences), counts / len(differences), size=stop - start)
        means[start:stop] = drawn @ values / len(differences)
    return means


def auc(scores: Sequence[float], labels: Sequence[bool]) -> float | None:
    """Return the probability that a positive scores higher than a negative; ties count half.

    Returns None unless there are both positives and negatives. Raises ValueError if the lengths differ.
    """
    positive = np.asarray(labels, dtype=bool)
    if len(scores) != len(positive):
        raise ValueError(f"{len(scores)} scores for {len(positive)} labels")
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if num_positive == 0 or num_negative == 0:
        return None
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    wins = float(ranks[positive].sum()) - num_positive * (num_positive + 1) / 2
    return wins / (num_positive * num_negative)
