"""What a judge answers against what is true, criterion by criterion. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from illume_db.judging import Judged

WHOLE = "whole answer"


@dataclass(slots=True)
class Confusion:
    """Answers by what is true and what was said."""

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
        """Answers in all."""
        return self.true_yes + self.false_yes + self.true_no + self.false_no

    @property
    def share_right(self) -> float:
        """Answers that are true."""
        return (self.true_yes + self.true_no) / self.n


def confusions(judged: Iterable[Judged]) -> dict[str, Confusion]:
    """Criterion to the judge's answers; the whole answer first, where it has calibrated probabilities.

    People count before the checker. Of an image that fails, the checker names some criteria: of the others nothing is
    known, nor which of several questions about a named one failed, so those are left out.
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
