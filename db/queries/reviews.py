"""What people said of samples, beside what the checker and the judge said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from db.models import Assessment, Prompt, Round, Sample


@dataclass(frozen=True, slots=True)
class ReviewRow:
    """One review with its sample; `criteria` holds those that were decided on, `checker` is None where it said
    nothing."""

    sample_id: int
    round_index: int
    text: str
    category: str
    key: str
    spec: dict[str, Any]
    image_sha256: str
    agrees: bool
    criteria: dict[str, bool]
    comment: str
    checker: bool | None


def reviews_of_run(session: Session, run_id: int) -> list[ReviewRow]:
    """All reviews of a run, in the order of the samples."""
    human, checker = aliased(Assessment), aliased(Assessment)
    query = (
        select(Sample.id, Round.index, Prompt, Sample.image_sha256, human.score, human.details, checker.score)
        .join(Round, Round.id == Sample.round_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .join(human, (human.sample_id == Sample.id) & (human.assessor == "human"))
        .outerjoin(checker, (checker.sample_id == Sample.id) & (checker.assessor == "checker"))
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
            image_sha256,
            score == 1.0,
            details.get("criteria", {}),
            details.get("comment", ""),
            None if verdict is None else verdict == 1.0,
        )
        for id_, index, prompt, image_sha256, score, details, verdict in session.execute(query)
    ]


def prompt_of_sample(session: Session, run_id: int, sample_id: int) -> Prompt | None:
    """The prompt that a sample of the run was drawn for; None where there is no such sample."""
    query = (
        select(Prompt)
        .join(Sample, Sample.prompt_id == Prompt.id)
        .join(Round, Round.id == Sample.round_id)
        .where(Sample.id == sample_id, Round.run_id == run_id)
    )
    return session.scalar(query)
