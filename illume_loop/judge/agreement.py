"""A judge's agreement with the truth and with the frozen judge: confusion tables and drift. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from illume_db.judging import JudgedSample
from illume_loop.evals.statistics import auc

WHOLE = "whole answer"


@dataclass(slots=True)
class Confusion:
    """The counts of answers by what was said (yes, no), and if that is true."""

    true_yes: int = 0
    false_yes: int = 0
    true_no: int = 0
    false_no: int = 0

    def add(self, said: bool, true: bool) -> None:
        """Count one answer."""
        name = f"{'true' if said is true else 'false'}_{'yes' if said else 'no'}"
        setattr(self, name, getattr(self, name) + 1)

    @property
    def n(self) -> int:
        """The number of all answers."""
        return self.true_yes + self.false_yes + self.true_no + self.false_no

    @property
    def share_right(self) -> float:
        """The share of right answers."""
        return (self.true_yes + self.true_no) / self.n


def confusions(judged: Iterable[JudgedSample]) -> dict[str, Confusion]:
    """Return a table of the judge's answers for the whole answer and for each criterion, in this order.

    The truth about a criterion is what people decided or, without people, what the checker found. The whole answer is
    compared with the checker alone, and only if the judge gave a calibrated probability.

    The checker names some of the criteria that an image fails. Nothing is known of the others, so they are left out. A
    failed criterion with several questions is left out too, because it is not known which of the questions failed.
    """
    found: dict[str, Confusion] = {}
    for one in judged:
        if one.probability is not None and one.failed is not None:
            found.setdefault(WHOLE, Confusion()).add(one.probability >= 0.5, not one.failed)
        names = [str(question.get("criterion")) for question in one.questions]
        for name, question in zip(names, one.questions, strict=True):
            log_odds = question.get("log_odds")
            holds = one.people.get(name, _by_checker(name, one.failed))
            if log_odds is None or holds is None or (not holds and names.count(name) > 1):
                continue
            found.setdefault(name, Confusion()).add(log_odds > 0, holds)
    return dict(sorted(found.items(), key=lambda item: (item[0] != WHOLE, item[0])))


def _by_checker(criterion: str, failed: list[str] | None) -> bool | None:
    if not failed:
        return None if failed is None else True
    return False if criterion in failed else None


@dataclass(frozen=True, slots=True)
class JudgeDrift:
    """The drift of a model from the frozen judge.

    `shift` is the mean difference in nats over the `n` images that both could judge. `auc` says how well the model's
    log-odds separate the images that the frozen judge takes as right (above 0) from the rest; it is None if the frozen
    judge takes all images as the same. `num_failed` images got no number from the model, only from the frozen judge.
    """

    n: int
    shift: float
    auc: float | None
    num_failed: int


def drift_between(model: Sequence[float], frozen: Sequence[float]) -> JudgeDrift:
    """Compare calibrated log-odds image by image. Raises ValueError if the lengths differ."""
    pairs = [(own, other) for own, other in zip(model, frozen, strict=True) if math.isfinite(other)]
    judged = [(own, other) for own, other in pairs if math.isfinite(own)]
    shift = math.fsum(own - other for own, other in judged) / len(judged) if judged else 0.0
    agreement = auc([own for own, _ in judged], [other > 0 for _, other in judged])
    return JudgeDrift(len(judged), shift, agreement, len(pairs) - len(judged))
