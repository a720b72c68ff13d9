"""Reads for the review queue and for agreement between people: unreviewed samples, reviews, and overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from illume_db.tables import Assessment, Review, Round, Sample

WINDOW = 2000
"""The most samples among which the queue looks for the next one, so that a large round takes no longer."""


@dataclass(frozen=True, slots=True)
class Unreviewed:
    """A sample that a person has not reviewed, with its assessments and the number of its reviews.

    By assessor: `scores`, calibrated `probabilities`, and `yes_no`, the mean log-odds of yes over the questions.
    `num_reviews` counts the other people who decided on the sample; skips do not count.
    """

    sample_id: int
    scores: dict[str, float]
    probabilities: dict[str, float]
    yes_no: dict[str, float]
    num_reviews: int


def unreviewed(session: Session, round_id: int, reviewer: str, limit: int = WINDOW) -> list[Unreviewed]:
    """Return the first `limit` samples of a round that a person has not reviewed, by id."""
    mine = select(Review.sample_id).where(Review.sample_id == Sample.id, Review.reviewer == reviewer)
    query = (
        select(Sample.id)
        .where(Sample.round_id == round_id, ~mine.exists())
        .order_by(Sample.round_id, Sample.id)
        .limit(limit)
    )
    ids = list(session.scalars(query))
    if not ids:
        return []
    found = {id_: Unreviewed(id_, {}, {}, {}, 0) for id_ in ids}
    counts = dict(_counts(session, round_id))
    said = Assessment.details["readings"]["yes-no"].as_float()
    rows = (
        select(Assessment.sample_id, Assessment.assessor, Assessment.score, Assessment.probability, said)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Sample.id >= ids[0], Sample.id <= ids[-1], Assessment.assessor != "human")
    )
    for sample_id, assessor, score, probability, yes_no in session.execute(rows):
        one = found.get(sample_id)
        if one is None:
            continue
        for values, value in ((one.scores, score), (one.probabilities, probability), (one.yes_no, yes_no)):
            if value is not None:
                values[assessor] = value
    return [
        Unreviewed(one.sample_id, one.scores, one.probabilities, one.yes_no, counts.get(one.sample_id, 0))
        for one in found.values()
    ]


def num_of_reviewer(session: Session, round_id: int, reviewer: str) -> int:
    """Count the samples of a round that a person has reviewed or skipped."""
    query = (
        select(func.count())
        .select_from(Review)
        .join(Sample, Sample.id == Review.sample_id)
        .where(Sample.round_id == round_id, Review.reviewer == reviewer)
    )
    return session.scalar(query) or 0


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two people's verdicts on the samples that both decided on: (the first agrees, the second agrees)."""

    first: str
    second: str
    verdicts: Sequence[tuple[bool, bool]]


def overlaps(session: Session, run_id: int) -> list[Overlap]:
    """Return the overlap of each pair of people who decided on the same samples, by name."""
    other = aliased(Review)
    query = (
        select(Review.reviewer, other.reviewer, Review.verdict, other.verdict)
        .join(other, (other.sample_id == Review.sample_id) & (other.reviewer > Review.reviewer))
        .join(Sample, Sample.id == Review.sample_id)
        .join(Round, Round.id == Sample.round_id)
        .where(Round.run_id == run_id, Review.verdict != "skip", other.verdict != "skip")
        .order_by(Review.reviewer, other.reviewer, Review.sample_id)
    )
    found: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for first, second, said, also_said in session.execute(query):
        found.setdefault((first, second), []).append((said == "agree", also_said == "agree"))
    return [Overlap(first, second, verdicts) for (first, second), verdicts in found.items()]


@dataclass(frozen=True, slots=True)
class SampleReview:
    """One person's review of a sample."""

    sample_id: int
    reviewer: str
    verdict: str
    criteria: dict[str, bool]
    comment: str
    reason: str


def reviews_of_sample(session: Session, sample_id: int) -> list[SampleReview]:
    """Return the reviews of a sample, the oldest first."""
    query = select(Review).where(Review.sample_id == sample_id).order_by(Review.id)
    return [
        SampleReview(row.sample_id, row.reviewer, row.verdict, row.criteria, row.comment, row.reason)
        for row in session.scalars(query)
    ]


def reviewers_of_run(session: Session, run_id: int) -> dict[str, dict[str, int]]:
    """Return each person's number of reviews in the run by verdict: {"agree", "disagree", "skip"}."""
    query = (
        select(Review.reviewer, Review.verdict, func.count())
        .join(Sample, Sample.id == Review.sample_id)
        .join(Round, Round.id == Sample.round_id)
        .where(Round.run_id == run_id)
        .group_by(Review.reviewer, Review.verdict)
        .order_by(Review.reviewer)
    )
    found: dict[str, dict[str, int]] = {}
    for reviewer, verdict, count in session.execute(query):
        found.setdefault(reviewer, {"agree": 0, "disagree": 0, "skip": 0})[verdict] = count
    return found


def random_share(session: Session, run_id: int) -> list[bool]:
    """Return the verdict of each review of a randomly shown image: True if the image is right.

    Only these reviews are a fair sample of all images.
    """
    query = (
        select(Review.verdict)
        .join(Sample, Sample.id == Review.sample_id)
        .join(Round, Round.id == Sample.round_id)
        .where(Round.run_id == run_id, Review.reason == "random", Review.verdict != "skip")
    )
    return [verdict == "agree" for verdict in session.scalars(query)]


def _counts(session: Session, round_id: int) -> Sequence[tuple[int, int]]:
    query = (
        select(Review.sample_id, func.count())
        .join(Sample, Sample.id == Review.sample_id)
        .where(Sample.round_id == round_id, Review.verdict != "skip")
        .group_by(Review.sample_id)
    )
    return [(sample_id, count) for sample_id, count in session.execute(query)]
