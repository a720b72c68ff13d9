"""Adding evaluations with their items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import insert
from sqlalchemy.orm import Session

from db.models import Evaluation, EvaluationItem


@dataclass(frozen=True, slots=True)
class NewItem:
    """One item's outcome, with its prompt and its kept image where there are."""

    passed: bool
    prompt_id: int | None = None
    image_sha256: str | None = None


def add_evaluation(
    session: Session,
    model_version_id: int,
    *,
    suite: str,
    plan_sha256: str,
    value: float,
    num_items: int,
    items: Sequence[NewItem],
    at: datetime,
) -> Evaluation:
    """Add what a suite measured; `items` is empty where a suite measures the whole, not items."""
    evaluation = Evaluation(
        model_version_id=model_version_id,
        suite=suite,
        plan_sha256=plan_sha256,
        num_items=num_items,
        value=value,
        created_at=at,
    )
    session.add(evaluation)
    session.flush()
    rows = [
        {"evaluation_id": evaluation.id, "position": position, **asdict(item)} for position, item in enumerate(items)
    ]
    if rows:
        session.execute(insert(EvaluationItem), rows)
    return evaluation
