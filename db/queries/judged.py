"""What a judge said question by question, beside the checker and people, for tables of its mistakes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from db.models import Assessment, Sample


@dataclass(frozen=True, slots=True)
class Judged:
    """One sample: the judge's questions with their log-odds and its probability, which criteria the checker found
    failed (None where it said nothing), and what people decided of each criterion."""

    questions: list[dict[str, Any]]
    probability: float | None
    failed: list[str] | None
    people: dict[str, bool]


def judged_samples(session: Session, round_id: int, assessor: str, limit: int) -> list[Judged]:
    """The first samples of a round that an assessor judged."""
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
        Judged(
            details.get("questions", []),
            probability,
            failed if state == "ok" else None,
            (people or {}).get("criteria", {}),
        )
        for details, probability, state, failed, people in session.execute(query)
    ]
