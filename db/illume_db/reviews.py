"""Reviews of samples by people: add them, take them back, and read them.

Invariants:

- Every change of a sample's reviews also updates the sample's one human assessment.
- The assessment has the verdict on which all people agree, and abstains if they differ. Skips do not count. A sample
  without verdicts has no human assessment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Subquery, delete, func, select
from sqlalchemy.orm import Session, aliased

from illume_db.clock import db_now
from illume_db.prompts import COLUMNS, PromptRow
from illume_db.tables import Assessment, Prompt, Review, Round, Sample


@dataclass(frozen=True, slots=True)
class NewReview:
    """A person's review to add: a verdict ("agree", "disagree" or "skip") and the decisions by criterion."""

    reviewer: str
    verdict: str
    criteria: Mapping[str, bool] = field(default_factory=dict)
    comment: str = ""
    reason: str = "chosen"


def put_review(session: Session, sample_id: int, new: NewReview, *, replace: bool) -> bool:
    """Add a person's review of a sample, or replace that person's earlier one.

    It returns False and changes nothing if that person has a review and `replace` is off.
    """
    query = select(Review).where(Review.sample_id == sample_id, Review.reviewer == new.reviewer)
    before = session.scalar(query)
    if before is not None:
        if not replace:
            return False
        # The new row has the highest id, so `take_back_review` finds it as the person's last review.
        session.delete(before)
        session.flush()
    session.add(
        Review(
            sample_id=sample_id,
            reviewer=new.reviewer,
            verdict=new.verdict,
            criteria=dict(new.criteria),
            comment=new.comment,
            reason=new.reason,
            created_at=db_now(),
        )
    )
    session.flush()
    _settle(session, sample_id)
    return True


def take_back_review(session: Session, run_id: int, reviewer: str) -> int | None:
    """Delete a person's last review in a run; return the id of its sample, or None if there is no review."""
    query = (
        select(Review)
        .join(Sample, Sample.id == Review.sample_id)
        .join(Round, Round.id == Sample.round_id)
        .where(Round.run_id == run_id, Review.reviewer == reviewer)
        .order_by(Review.id.desc())
        .limit(1)
    )
    last = session.scalar(query)
    if last is None:
        return None
    session.delete(last)
    session.flush()
    _settle(session, last.sample_id)
    return last.sample_id


def _settle(session: Session, sample_id: int) -> None:
    # Two people may review one sample at once. The second transaction waits here and then sees the first review.
    session.execute(select(Sample.id).where(Sample.id == sample_id).with_for_update(key_share=True))
    of_sample = Assessment.sample_id == sample_id, Assessment.assessor == "human"
    told = select(Review).where(Review.sample_id == sample_id, Review.verdict != "skip").order_by(Review.id)
    reviews = list(session.scalars(told))
    if not reviews:
        session.execute(delete(Assessment).where(*of_sample))
        return
    assessment = session.scalar(select(Assessment).where(*of_sample))
    if assessment is None:
        assessment = Assessment(sample_id=sample_id, assessor="human", state="abstained")
        session.add(assessment)
    verdicts = {review.verdict for review in reviews}
    criteria = _agreed([review.criteria for review in reviews])
    assessment.state = "ok" if len(verdicts) == 1 else "abstained"
    assessment.score = None if len(verdicts) > 1 else 1.0 if "agree" in verdicts else 0.0
    assessment.failed_criteria = [name for name, holds in criteria.items() if not holds]
    comment = "; ".join(review.comment for review in reviews if review.comment)
    assessment.details = {"criteria": criteria, "comment": comment}
    session.flush()


def _agreed(told: Sequence[Mapping[str, bool]]) -> dict[str, bool]:
    """Return the criteria on which no two people differ, with the decision."""
    said: dict[str, set[bool]] = {}
    for criteria in told:
        for name, holds in criteria.items():
            said.setdefault(name, set()).add(holds)
    return {name: values.pop() for name, values in said.items() if len(values) == 1}


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """A reviewed sample with the verdicts of people, of the checker and of the judge.

    `agrees` is None if people differ, and `criteria` holds only the criteria on which they do not. `checker` is None if
    the checker gave no verdict. `readings` and `questions` are the judge's.
    """

    sample_id: int
    round_index: int
    prompt: PromptRow
    image_sha256: str
    agrees: bool | None
    criteria: dict[str, bool]
    comment: str
    checker: bool | None
    readings: dict[str, float | None]
    questions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HumanVerdict:
    """The verdict on which people agree, of the whole sample and by criterion."""

    agrees: bool
    criteria: dict[str, bool]


def reviews_of_run(session: Session, run_id: int, judge: str = "self") -> list[ReviewRow]:
    """Return the reviewed samples of a run by id, with the readings of the assessor `judge`."""
    human, checker, own = aliased(Assessment), aliased(Assessment), aliased(Assessment)
    reviewed = _reviewed()
    query = (
        select(Sample.id, Round.index, Sample.image_sha256, human, checker.score, own.details, *COLUMNS)
        .join(reviewed, reviewed.c.sample_id == Sample.id)
        .join(Round, Round.id == Sample.round_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .join(human, (human.sample_id == Sample.id) & (human.assessor == "human"))
        .outerjoin(checker, (checker.sample_id == Sample.id) & (checker.assessor == "checker"))
        .outerjoin(own, (own.sample_id == Sample.id) & (own.assessor == judge))
        .where(Round.run_id == run_id)
        .order_by(Sample.id)
    )
    return [
        ReviewRow(
            id_,
            index,
            PromptRow(*prompt),
            image_sha256,
            None if said.score is None else said.score == 1.0,
            said.details.get("criteria", {}),
            said.details.get("comment", ""),
            None if verdict is None else verdict == 1.0,
            (details or {}).get("readings", {}),
            (details or {}).get("questions", []),
        )
        for id_, index, image_sha256, said, verdict, details, *prompt in session.execute(query)
    ]


def verdicts_of_people(session: Session, run_id: int, round_id: int | None = None) -> dict[int, HumanVerdict]:
    """Return the verdicts on which people agree, by sample id, in a round or in the whole run."""
    reviewed = _reviewed()
    query = (
        select(Assessment.sample_id, Assessment.score, Assessment.details)
        .join(reviewed, reviewed.c.sample_id == Assessment.sample_id)
        .join(Sample, Sample.id == Assessment.sample_id)
        .join(Round, Round.id == Sample.round_id)
        .where(Round.run_id == run_id, Assessment.assessor == "human", Assessment.state == "ok")
    )
    if round_id is not None:
        query = query.where(Sample.round_id == round_id)
    return {
        sample_id: HumanVerdict(score == 1.0, details.get("criteria", {}))
        for sample_id, score, details in session.execute(query)
    }


def _reviewed() -> Subquery:
    """Return a subquery of the samples with reviews. They are few, so a join with them avoids a scan of assessments."""
    return select(Review.sample_id).distinct().subquery()


def num_reviewed(session: Session, round_id: int) -> int:
    """Count the samples of a round with at least one review that is not a skip."""
    query = (
        select(func.count(Review.sample_id.distinct()))
        .join(Sample, Sample.id == Review.sample_id)
        .where(Sample.round_id == round_id, Review.verdict != "skip")
    )
    return session.scalar(query) or 0


def prompt_of_sample(session: Session, run_id: int, sample_id: int) -> Prompt | None:
    """Return the prompt of a sample of the run; None if there is no such sample."""
    query = (
        select(Prompt)
        .join(Sample, Sample.prompt_id == Prompt.id)
        .join(Round, Round.id == Sample.round_id)
        .where(Sample.id == sample_id, Round.run_id == run_id)
    )
    return session.scalar(query)
