"""Adding and taking back what people say of samples; a sample's one human assessment always follows from it.

People who say the same make the assessment, those who differ make it abstain, and a sample that nobody says anything of
has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.clock import db_now
from db.models import Assessment, Review, Round, Sample


@dataclass(frozen=True, slots=True)
class NewReview:
    """What one person says of a sample: "agree", "disagree" or "skip", and the criteria that were decided on."""

    reviewer: str
    verdict: str
    criteria: Mapping[str, bool] = field(default_factory=dict)
    comment: str = ""
    reason: str = "chosen"


def put_review(session: Session, sample_id: int, new: NewReview, *, replace: bool) -> bool:
    """Add a person's review of a sample, or put it in the place of the one before.

    False, and nothing is changed, where that person has one and `replace` is off.
    """
    query = select(Review).where(Review.sample_id == sample_id, Review.reviewer == new.reviewer)
    before = session.scalar(query)
    if before is not None:
        if not replace:
            return False
        # A new row, so that it is the last one that is taken back.
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
    """Take back the last review of a person in a run; the sample that it was of, None where there is none."""
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
    # Two people may decide on one sample at once: the second one waits here, and sees what the first one said.
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
    """The criteria on which nobody contradicts another."""
    said: dict[str, set[bool]] = {}
    for criteria in told:
        for name, holds in criteria.items():
            said.setdefault(name, set()).add(holds)
    return {name: values.pop() for name, values in said.items() if len(values) == 1}
