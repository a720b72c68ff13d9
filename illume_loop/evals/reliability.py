"""The reliability of probabilities: AUC, Brier score, and calibration error over fixed bins. Deterministic.

There are NUM_BINS bins of equal width over 0..1; the last one includes its upper end (Guo et al. 2017, section 2).
Empty bins count nothing. Equal widths make the error comparable between judges, whatever probabilities each gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from illume_loop.evals.statistics import Interval, auc, wilson_interval

NUM_BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """The items with a probability in low..high: their mean probability `said`, and the share that came true."""

    low: float
    high: float
    said: float
    true: Interval


@dataclass(frozen=True, slots=True)
class Reliability:
    """The reliability of `n` probabilities.

    `auc` is None if all labels are the same. `ece` is the mean over items of |said - true| of the item's bin.
    """

    n: int
    share_true: float
    auc: float | None
    brier: float
    ece: float
    bins: tuple[Bin, ...]


def reliability(probabilities: Sequence[float], labels: Sequence[bool]) -> Reliability:
    """Compare probabilities with their labels.

    Raises ValueError if the lengths differ, if there are no probabilities, or if one lies outside 0..1.
    """
    said = np.asarray(probabilities, dtype=np.float64)
    true = np.asarray(labels, dtype=bool)
    if len(said) != len(true) or len(said) == 0:
        raise ValueError(f"{len(said)} probabilities for {len(true)} labels")
    if not ((said >= 0) & (said <= 1)).all():
        raise ValueError("probabilities must lie in 0..1")
    places = np.minimum((said * NUM_BINS).astype(int), NUM_BINS - 1)
    bins = tuple(
        Bin(
            low=place / NUM_BINS,
            high=(place + 1) / NUM_BINS,
            said=float(said[places == place].mean()),
            true=wilson_interval(true[places == place].tolist()),
        )
        for place in sorted(set(places.tolist()))
    )
    return Reliability(
        n=len(said),
        share_true=float(true.mean()),
        auc=auc(said.tolist(), true.tolist()),
        brier=float(((said - true) ** 2).mean()),
        ece=sum(part.true.n * abs(part.said - part.true.mean) for part in bins) / len(said),
        bins=bins,
    )
