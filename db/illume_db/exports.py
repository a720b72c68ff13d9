"""Reads for exports: a run's samples, assessments, reviews and manifest rows, in batches by keys that never change."""

from __future__ import annotations

from typing import Any, TypeVar

from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from illume_db.samples import EDIT, samples_page
from illume_db.tables import Assessment, Example, Manifest, ModelVersion, Prompt, Review, Round, Sample
from illume_db.tables.versions import version_name

SomeSelect = TypeVar("SomeSelect", bound=Select[*tuple[Any, ...]])


def last_ids(session: Session, run_id: int) -> dict[str, int]:
    """Return the highest ids of the run's samples, assessments and reviews (0 if there are none).

    An export leaves out all rows with higher ids.
    """
    of_run = select(Round.id).where(Round.run_id == run_id)
    samples = select(func.max(Sample.id)).where(Sample.round_id.in_(of_run))
    assessments = select(func.max(Assessment.id)).join(Sample, Sample.id == Assessment.sample_id)
    reviews = select(func.max(Review.id)).join(Sample, Sample.id == Review.sample_id)
    return {
        "samples": session.scalar(samples) or 0,
        "assessments": session.scalar(assessments.where(Sample.round_id.in_(of_run))) or 0,
        "reviews": session.scalar(reviews.where(Sample.round_id.in_(of_run))) or 0,
    }


def manifest_rounds(session: Session, run_id: int) -> list[int]:
    """Return the indexes of the rounds of a run that have a manifest, in order."""
    query = select(Round.index).join(Manifest, Manifest.round_id == Round.id).where(Round.run_id == run_id)
    return list(session.scalars(query.order_by(Round.index)))


def samples_after(
    session: Session,
    run_id: int,
    after: int,
    limit: int,
    *,
    until: int,
    round_index: int | None = None,
    accepted: bool | None = None,
) -> list[dict[str, Any]]:
    """Return at most `limit` samples with after < id <= until.

    Each is a row of `samples_page` with its image-token ids and the fields of an edit: instruction, target and
    source_sha256, which are None for other samples.
    """
    rows = samples_page(session, run_id, round_index=round_index, accepted=accepted, after=after, limit=limit)
    rows = [row for row in rows if row["id"] <= until]
    query = (
        select(Sample, Prompt)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .where(Sample.id.in_([row["id"] for row in rows]))
    )
    more = {
        sample.id: {"image_ids": sample.image_ids.tolist(), **_edit_of(prompt)}
        for sample, prompt in session.execute(query)
    }
    return [row | more[row["id"]] for row in rows]


def assessments_after(
    session: Session,
    run_id: int,
    after: int,
    limit: int,
    *,
    until: int,
    round_index: int | None = None,
) -> list[dict[str, Any]]:
    """Return at most `limit` assessments with after < id <= until, by id."""
    query = (
        select(Assessment, Round.index, ModelVersion.number)
        .join(Sample, Sample.id == Assessment.sample_id)
        .join(Round, Round.id == Sample.round_id)
        .outerjoin(ModelVersion, ModelVersion.id == Assessment.model_version_id)
    )
    query = _batch(query, Assessment.id, run_id, after, limit, until, round_index)
    return [
        {
            "id": row.id,
            "sample": row.sample_id,
            "round": index,
            "assessor": row.assessor,
            "model": version_name(number) if number is not None else None,
            "state": row.state,
            "score": row.score,
            "failed": row.failed_criteria,
            "error": row.error,
            "probability": row.probability,
            "details": row.details,
            "critique": row.critique,
        }
        for row, index, number in session.execute(query)
    ]


def reviews_after(
    session: Session, run_id: int, after: int, limit: int, *, until: int, round_index: int | None = None
) -> list[dict[str, Any]]:
    """Return at most `limit` reviews with after < id <= until, by id, skips included."""
    query = select(Review, Round.index).join(Sample, Sample.id == Review.sample_id)
    query = _batch(query.join(Round, Round.id == Sample.round_id), Review.id, run_id, after, limit, until, round_index)
    return [
        {
            "id": row.id,
            "sample": row.sample_id,
            "round": index,
            "reviewer": row.reviewer,
            "verdict": row.verdict,
            "criteria": row.criteria,
            "comment": row.comment,
            "reason": row.reason,
            "created_at": row.created_at.isoformat(),
        }
        for row, index in session.execute(query)
    ]


def examples_after(
    session: Session,
    run_id: int,
    after: tuple[int, int],
    limit: int,
    *,
    round_index: int | None = None,
    kinds: tuple[str, ...] = (),
    of_samples: bool = False,
    once: bool = False,
) -> list[dict[str, Any]]:
    """Return at most `limit` manifest rows after (round, position), in that order.

    Each has its samples' ids and images, and the fields of an edit. `kinds` leaves out rows of other kinds,
    `of_samples` leaves out replayed real pairs, and `once` leaves out all rows of a sample in a manifest but its first.
    """
    query = _examples_of_run(run_id, after).limit(limit)
    if round_index is not None:
        query = query.where(Round.index == round_index)
    if kinds:
        query = query.where(Example.kind.in_(kinds))
    if of_samples:
        query = query.where(Example.sample_id.is_not(None))
    if once:
        earlier = aliased(Example)
        again = select(earlier.position).where(
            earlier.manifest_id == Example.manifest_id,
            earlier.sample_id == Example.sample_id,
            earlier.position < Example.position,
            earlier.kind.in_(kinds),
        )
        query = query.where(~again.exists())
    return [
        {
            "round": index,
            "position": row.position,
            "kind": row.kind,
            "text": row.text,
            "sample": row.sample_id,
            "rejected": row.rejected_id,
            "real_index": row.real_index,
            "ids_sha256": row.ids_sha256,
            "rejected_sha256": row.rejected_sha256,
            "answer": row.answer,
            "manifest_sha256": sha256,
            **_of_sample("", better),
            **_of_sample("rejected_", worse),
            **_edit_of(prompt),
        }
        for row, index, sha256, better, worse, prompt in session.execute(query)
    ]


def _batch(
    query: SomeSelect,
    key: InstrumentedAttribute[int],
    run_id: int,
    after: int,
    limit: int,
    until: int,
    round_index: int | None,
) -> SomeSelect:
    """Return a query for a batch: at most `limit` rows with after < key <= until, of the run or of one round."""
    of_round = [] if round_index is None else [Round.index == round_index]
    return query.where(Round.run_id == run_id, key > after, key <= until, *of_round).order_by(key).limit(limit)


def _examples_of_run(run_id: int, after: tuple[int, int]) -> Select[Example, int, str, Sample, Sample, Prompt]:
    """Return a query for manifest rows after (round, position).

    Each comes with its round's index, its manifest's sha256, the better and the worse sample, and its prompt.
    """
    rejected = aliased(Sample)
    return (
        select(Example, Round.index, Manifest.sha256, Sample, rejected, Prompt)
        .join(Manifest, Manifest.id == Example.manifest_id)
        .join(Round, Round.id == Manifest.round_id)
        .outerjoin(Sample, Sample.id == Example.sample_id)
        .outerjoin(rejected, rejected.id == Example.rejected_id)
        .outerjoin(Prompt, Prompt.id == Example.prompt_id)
        .where(
            Round.run_id == run_id,
            or_(Round.index > after[0], and_(Round.index == after[0], Example.position > after[1])),
        )
        .order_by(Round.index, Example.position)
    )


def _edit_of(prompt: Prompt | None) -> dict[str, Any]:
    return {name: getattr(prompt, name, None) for name in EDIT}


def _of_sample(prefix: str, sample: Sample | None) -> dict[str, Any]:
    return {
        f"{prefix}image_ids": None if sample is None else sample.image_ids.tolist(),
        f"{prefix}image": None if sample is None else sample.image_sha256,
    }
