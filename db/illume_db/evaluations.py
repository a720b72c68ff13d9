"""Evaluations of model versions: add one with its items, and read stored ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, insert, select
from sqlalchemy.orm import Session, aliased

from illume_db.tables import Evaluation, EvaluationItem, ModelVersion, Prompt, Round


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
    decode: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Add a suite's evaluation; `items` is empty if the suite measures only the whole."""
    evaluation = Evaluation(
        model_version_id=model_version_id,
        suite=suite,
        plan_sha256=plan_sha256,
        num_items=num_items,
        value=value,
        decode=None if decode is None else dict(decode),
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
    evaluation = session.scalar(select(Evaluation).where(*_under_plan(version_id, suite, plan_sha256)))
    if evaluation is None:
        return None
    items = select(EvaluationItem.passed).where(EvaluationItem.evaluation_id == evaluation.id)
    return StoredEvaluation(evaluation.value, list(session.scalars(items.order_by(EvaluationItem.position))))


def is_evaluated(session: Session, version_id: int, suite: str, plan_sha256: str) -> bool:
    """Return True if an evaluation of a version under exactly this plan is stored."""
    query = select(Evaluation.id).where(*_under_plan(version_id, suite, plan_sha256))
    return session.scalar(query) is not None


def _under_plan(version_id: int, suite: str, plan_sha256: str) -> tuple[ColumnElement[bool], ...]:
    return (
        Evaluation.model_version_id == version_id,
        Evaluation.suite == suite,
        Evaluation.plan_sha256 == plan_sha256,
    )


@dataclass(frozen=True, slots=True)
class DecodeTrial:
    """The share of train prompts that a version draws right at one decode."""

    plan_sha256: str
    decode: dict[str, Any]
    value: float
    num_prompts: int


def decode_trials(session: Session, run_id: int) -> dict[int, list[DecodeTrial]]:
    """Return the trials of decodes of a run's versions, by the version's id."""
    query = (
        select(
            Evaluation.model_version_id,
            Evaluation.plan_sha256,
            Evaluation.decode,
            Evaluation.value,
            Evaluation.num_items,
        )
        .join(ModelVersion, ModelVersion.id == Evaluation.model_version_id)
        .where(ModelVersion.run_id == run_id, Evaluation.suite == "decode")
    )
    found: dict[int, list[DecodeTrial]] = {}
    for version_id, plan_sha256, decode, value, num_prompts in session.execute(query):
        found.setdefault(version_id, []).append(DecodeTrial(plan_sha256, decode or {}, value, num_prompts))
    return found


def best_trial(trials: Sequence[DecodeTrial], setting: Mapping[str, Any]) -> DecodeTrial:
    """Return the trial with the largest share; the order of `trials` does not matter.

    Among equals, the run's own setting comes first, and then the decode with the least guidance and the highest
    temperature, which changes the model least.
    """
    return max(
        trials,
        key=lambda trial: (
            trial.value,
            trial.decode == setting,
            -trial.decode["guidance_scale"],
            trial.decode["temperature"],
        ),
    )


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
