"""Evaluations of model versions: add one with its items, and read stored ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session, aliased

from illume_db.tables import Evaluation, EvaluationItem, Prompt, Round


@dataclass(frozen=True, slots=True)
class NewItem:
    """One item's outcome, with its prompt and its stored image if it has them."""

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
    """Add a suite's evaluation; `items` is empty if the suite measures only the whole."""
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


@dataclass(frozen=True, slots=True)
class StoredEvaluation:
    """A stored evaluation: the suite's `value`, and each item's outcome if the suite has items."""

    value: float
    passed: list[bool]


def find_evaluation(session: Session, version_id: int, suite: str, plan_sha256: str) -> StoredEvaluation | None:
    """Return the evaluation of a version under exactly this plan; None if there is none."""
    evaluation = session.scalar(
        select(Evaluation).where(
            Evaluation.model_version_id == version_id,
            Evaluation.suite == suite,
            Evaluation.plan_sha256 == plan_sha256,
        )
    )
    if evaluation is None:
        return None
    items = select(EvaluationItem.passed).where(EvaluationItem.evaluation_id == evaluation.id)
    return StoredEvaluation(evaluation.value, list(session.scalars(items.order_by(EvaluationItem.position))))


def kept_draws(session: Session, run_id: int, round_index: int) -> list[dict[str, Any]]:
    """Return the held-out draws whose images were kept, parent beside candidate: same prompt, same seed.

    Each is {"prompt", "category", "parent": {"image_sha256", "passed"}, "candidate": {...}}. There are none before the
    gate.
    """
    before, after = aliased(EvaluationItem), aliased(EvaluationItem)
    of_parent, of_candidate = aliased(Evaluation), aliased(Evaluation)
    query = (
        select(Prompt.text, Prompt.category, before.image_sha256, before.passed, after.image_sha256, after.passed)
        .select_from(Round)
        .join(of_parent, of_parent.model_version_id == Round.parent_version_id)
        .join(
            of_candidate,
            (of_candidate.model_version_id == Round.candidate_version_id)
            & (of_candidate.plan_sha256 == of_parent.plan_sha256),
        )
        .join(before, before.evaluation_id == of_parent.id)
        .join(after, (after.evaluation_id == of_candidate.id) & (after.position == before.position))
        .join(Prompt, Prompt.id == before.prompt_id)
        .where(
            Round.run_id == run_id,
            Round.index == round_index,
            of_parent.suite == "heldout",
            before.image_sha256.is_not(None),
            after.image_sha256.is_not(None),
        )
        .order_by(of_parent.id, before.position)
    )
    return [
        {
            "prompt": text,
            "category": category,
            "parent": {"image_sha256": parent_sha, "passed": parent_passed},
            "candidate": {"image_sha256": candidate_sha, "passed": candidate_passed},
        }
        for text, category, parent_sha, parent_passed, candidate_sha, candidate_passed in session.execute(query)
    ]
