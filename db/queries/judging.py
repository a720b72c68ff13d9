"""How the judges of a round fared: what they could not score and why, and how they took to foreign prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from db.models import Assessment, Sample
from db.queries.progress import PromptRow, prompts_at

INVALID = ("invalid_questions", "invalid_critiques")


@dataclass(frozen=True, slots=True)
class Fared:
    """Samples of a round by what one assessor said of them; `error` is the commonest of those that failed.

    Of `num_invalid` samples the judge wrote something that was no valid answer, whatever came of the further tries.
    """

    num_ok: int
    num_abstained: int
    num_failed: int
    num_invalid: int
    error: str | None

    @property
    def counts(self) -> dict[str, int]:
        """What curation tells of the judge."""
        return {
            "judge_abstained": self.num_abstained,
            "judge_failed": self.num_failed,
            "judge_invalid": self.num_invalid,
        }


def fared(session: Session, round_id: int, assessor: str) -> Fared:
    """How an assessor fared in a round."""

    def count(*conditions: ColumnElement[bool]) -> int:
        of_round = Sample.round_id == round_id, Assessment.assessor == assessor
        query = select(func.count()).select_from(Assessment).join(Sample, Sample.id == Assessment.sample_id)
        return session.scalar(query.where(*of_round, *conditions)) or 0

    commonest = (
        select(Assessment.error)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Assessment.assessor == assessor, Assessment.state == "failed")
        .group_by(Assessment.error)
        .order_by(func.count().desc(), Assessment.error)
        .limit(1)
    )
    by_state = {state: count(Assessment.state == state) for state in ("ok", "abstained", "failed")}
    invalid = count(or_(*(Assessment.details[name].as_integer().is_not(None) for name in INVALID)))
    return Fared(by_state["ok"], by_state["abstained"], by_state["failed"], invalid, session.scalar(commonest))


def controls(session: Session, round_id: int, assessor: str) -> list[tuple[float, float]]:
    """(Mean log-odds of the questions of its own prompt, of a foreign one) for each image that was asked both."""
    own = Assessment.details["readings"]["yes-no"].as_float()
    foreign = Assessment.details["control"].as_float()
    query = (
        select(own, foreign)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Assessment.assessor == assessor, own.is_not(None), foreign.is_not(None))
    )
    return [(first, second) for first, second in session.execute(query)]


def next_prompts(session: Session, round_id: int, positions: Sequence[int]) -> dict[int, PromptRow]:
    """Position to the prompt that comes after it in the round; after the last one comes the first."""
    (first,) = prompts_at(session, round_id, 0, 1)
    found = {prompt.position: prompt for prompt in prompts_at(session, round_id, min(positions), max(positions) + 2)}
    return {position: found.get(position + 1, first) for position in positions}
