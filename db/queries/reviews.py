"""What people said of samples, beside what the checker and the judge said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Subquery, func, select
from sqlalchemy.orm import Session, aliased

from db.models import Assessment, Prompt, Review, Round, Sample


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """What people said of one sample; `agrees` is None where they differ, `criteria` holds those that were decided on
    alike, `checker` is None where it said nothing, `readings` and `questions` are the judge's."""

    sample_id: int
    round_index: int
    text: str
    category: str
    key: str
    spec: dict[str, Any]
    instruction: str | None
    target: str | None
    image_sha256: str
    agrees: bool | None
    criteria: dict[str, bool]
    comment: str
    checker: bool | None
    readings: dict[str, float | None]
    questions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class HumanVerdict:
    """What people say of a sample alike, of the whole and of the criteria that they decided on."""

    agrees: bool
    criteria: dict[str, bool]


def reviews_of_run(session: Session, run_id: int, judge: str = "self") -> list[ReviewRow]:
    """The reviewed samples of a run, in the order of the samples, with the readings of the assessor `judge`."""
    human, checker, own = aliased(Assessment), aliased(Assessment), aliased(Assessment)
    reviewed = _reviewed()
    query = (
        select(Sample.id, Round.index, Prompt, Sample.image_sha256, human, checker.score, own.details)
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
            prompt.text,
            prompt.category,
            prompt.key,
            prompt.spec,
            prompt.instruction,
            prompt.target,
            image_sha256,
            None if said.score is None else said.score == 1.0,
            said.details.get("criteria", {}),
            said.details.get("comment", ""),
            None if verdict is None else verdict == 1.0,
            (details or {}).get("readings", {}),
            (details or {}).get("questions", []),
        )
        for id_, index, prompt, image_sha256, said, verdict, details in session.execute(query)
    ]


def verdicts_of_people(session: Session, run_id: int, round_id: int | None = None) -> dict[int, HumanVerdict]:
    """Sample id to what people say of it alike, in a round or in the whole run."""
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
    """The samples with reviews: a few of the very many whose assessments would have to be looked through."""
    return select(Review.sample_id).distinct().subquery()


def num_reviewed(session: Session, round_id: int) -> int:
    """How many samples of a round somebody said something of; skips say nothing."""
    query = (
        select(func.count(Review.sample_id.distinct()))
        .join(Sample, Sample.id == Review.sample_id)
        .where(Sample.round_id == round_id, Review.verdict != "skip")
    )
    return session.scalar(query) or 0


def prompt_of_sample(session: Session, run_id: int, sample_id: int) -> Prompt | None:
    """The prompt that a sample of the run was drawn for; None where there is no such sample."""
    query = (
        select(Prompt)
        .join(Sample, Sample.prompt_id == Prompt.id)
        .join(Round, Round.id == Sample.round_id)
        .where(Sample.id == sample_id, Round.run_id == run_id)
    )
    return session.scalar(query)
