"""How far a model has drifted as a judge: its calibrated log-odds against the frozen judge's, on the same images. Pure.

Both go through the one calibration of the run, which was fitted with the frozen judge: a judge that has become bolder,
milder or confused shows as another number for the same image, while one that only draws better does not. No label is
needed, so drift is seen where no checker is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from illume_loop.evals.statistics import auc


@dataclass(frozen=True, slots=True)
class JudgeDrift:
    """`shift` is the mean difference in nats over the `n` images that both could judge.

    `auc` says how well the model's log-odds tell what the frozen judge takes for right (above 0) from the rest; None
    where that takes all images for the same. `num_failed` images got no number from the model, only from the frozen
    judge.
    """

    n: int
    shift: float
    auc: float | None
    num_failed: int


def drift_between(model: Sequence[float], frozen: Sequence[float]) -> JudgeDrift:
    """Compare calibrated log-odds image by image. Raises ValueError for lengths that differ."""
    pairs = [(own, other) for own, other in zip(model, frozen, strict=True) if math.isfinite(other)]
    judged = [(own, other) for own, other in pairs if math.isfinite(own)]
    shift = math.fsum(own - other for own, other in judged) / len(judged) if judged else 0.0
    agreement = auc([own for own, _ in judged], [other > 0 for _, other in judged])
    return JudgeDrift(len(judged), shift, agreement, len(pairs) - len(judged))
