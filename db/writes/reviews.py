"""Adding what people say of samples: human assessments, one for each sample."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Assessment


def put_review(
    session: Session, sample_id: int, *, agrees: bool, criteria: dict[str, bool], comment: str, replace: bool
) -> bool:
    """Add the human assessment of a sample, or put it in the place of the one before.

    `criteria` holds those that were decided on. False, and nothing is changed, where there is one and `replace` is off.
    """
    query = select(Assessment).where(Assessment.sample_id == sample_id, Assessment.assessor == "human")
    review = session.scalar(query)
    if review is not None and not replace:
        return False
    if review is None:
        review = Assessment(sample_id=sample_id, assessor="human", state="ok")
        session.add(review)
    review.score = 1.0 if agrees else 0.0
    review.failed_criteria = [name for name, holds in criteria.items() if not holds]
    review.details = {"criteria": criteria, "comment": comment}
    session.flush()
    return True
