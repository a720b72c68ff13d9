"""The judges of a run: their calibration, their drift, and their answers beside those of the checker and people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, aliased

from illume_db.prompts import PromptRow, prompts_at
from illume_db.tables import Assessment, Calibration, Drift, Sample


def calibration_of_run(session: Session, run_id: int) -> Calibration | None:
    """Return the calibration of a run; None if it has none."""
    return session.get(Calibration, run_id)


def drift_of_round(session: Session, round_id: int) -> Drift | None:
    """Return how far the round's candidate drifted as a judge; None if that was not measured."""
    return session.get(Drift, round_id)


def add_calibration(session: Session, run_id: int, *, sha256: str, content: dict[str, Any], at: datetime) -> None:
    """Add the calibration of a run. A second one violates its primary key."""
    session.add(Calibration(run_id=run_id, sha256=sha256, content=content, created_at=at))
    session.flush()


def add_drift(
    session: Session,
    round_id: int,
    *,
    num_samples: int,
    shift: float,
    auc: float | None,
    num_failed: int,
    at: datetime,
) -> None:
    """Add the judge drift of a round's candidate. A second one violates its primary key."""
    values = {"num_samples": num_samples, "shift": shift, "auc": auc, "num_failed": num_failed}
    session.add(Drift(round_id=round_id, **values, created_at=at))
    session.flush()


INVALID = ("invalid_questions", "invalid_critiques")


@dataclass(frozen=True, slots=True)
class AssessmentCounts:
    """Counts of a round's samples by the state of one assessor's assessment.

    `error` is the most frequent error of the failed assessments. For `num_invalid` samples the judge wrote at least one
    invalid answer; a later try may have been valid.
    """

    num_ok: int
    num_abstained: int
    num_failed: int
    num_invalid: int
    error: str | None

    @property
    def counts(self) -> dict[str, int]:
        """The judge's counts in a manifest's `counts`."""
        return {
            "judge_abstained": self.num_abstained,
            "judge_failed": self.num_failed,
            "judge_invalid": self.num_invalid,
        }


def count_assessments(session: Session, round_id: int, assessor: str) -> AssessmentCounts:
    """Count a round's samples by the state of an assessor's assessment."""

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
    return AssessmentCounts(
        by_state["ok"], by_state["abstained"], by_state["failed"], invalid, session.scalar(commonest)
    )


def count_written(session: Session, round_id: int, assessor: str) -> tuple[int, int]:
    """Return the number of an assessor's invalid written replies, and of the samples that it wrote no critique of."""
    of_round = Sample.round_id == round_id, Assessment.assessor == assessor
    invalid = func.sum(Assessment.details["invalid_critiques"].as_integer())
    missing = func.count().filter(Assessment.critique.is_(None))
    query = select(invalid, missing).select_from(Assessment).join(Sample, Sample.id == Assessment.sample_id)
    num_invalid, num_missing = session.execute(query.where(*of_round)).one()
    return num_invalid or 0, num_missing


def controls(session: Session, round_id: int, assessor: str) -> list[tuple[float, float]]:
    """Return the two control readings of each image that has both.

    They are the mean log-odds of the questions of its own prompt and those of the questions of a foreign prompt.
    """
    own = Assessment.details["readings"]["yes-no"].as_float()
    foreign = Assessment.details["control"].as_float()
    query = (
        select(own, foreign)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Assessment.assessor == assessor, own.is_not(None), foreign.is_not(None))
    )
    return [(first, second) for first, second in session.execute(query)]


def next_prompts(session: Session, round_id: int, positions: Sequence[int]) -> dict[int, PromptRow]:
    """Return the prompt that follows each position in the round; the first prompt follows the last one."""
    (first,) = prompts_at(session, round_id, 0, 1)
    found = {prompt.position: prompt for prompt in prompts_at(session, round_id, min(positions), max(positions) + 2)}
    return {position: found.get(position + 1, first) for position in positions}


@dataclass(frozen=True, slots=True)
class JudgedSample:
    """The verdicts on one sample.

    `questions` are the judge's questions with their log-odds and `probability` is the judge's. `failed` are the
    criteria that the checker found failed, None if it gave no verdict. `people` are people's decisions by criterion.
    """

    questions: list[dict[str, Any]]
    probability: float | None
    failed: list[str] | None
    people: dict[str, bool]


def judged_samples(session: Session, round_id: int, assessor: str, limit: int) -> list[JudgedSample]:
    """Return the samples that an assessor judged among the first `limit` of a round."""
    judge, checker, human = aliased(Assessment), aliased(Assessment), aliased(Assessment)
    some = (
        select(Sample.id)
        .where(Sample.round_id == round_id)
        .order_by(Sample.round_id, Sample.id)
        .limit(limit)
        .subquery()
    )
    query = (
        select(judge.details, judge.probability, checker.state, checker.failed_criteria, human.details)
        .select_from(some)
        .join(judge, (judge.sample_id == some.c.id) & (judge.assessor == assessor))
        .outerjoin(checker, (checker.sample_id == some.c.id) & (checker.assessor == "checker"))
        .outerjoin(human, (human.sample_id == some.c.id) & (human.assessor == "human"))
    )
    return [
        JudgedSample(
            details.get("questions", []),
            probability,
            failed if state == "ok" else None,
            (people or {}).get("criteria", {}),
        )
        for details, probability, state, failed, people in session.execute(query)
    ]
