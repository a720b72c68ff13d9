"""Samples, for the command line and the page: pages of them, one with all that was said of it, and lineage."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, exists, or_, select
from sqlalchemy.orm import Session, aliased

from db.models import Assessment, Example, Manifest, ModelVersion, Prompt, Round, Run, Sample
from db.models.version import version_name
from db.queries.curation import scored_by

EDIT = ("instruction", "target", "source_sha256")
JUDGE, CHECKER = aliased(Assessment), aliased(Assessment)
"""What the run's assessor and the checker say in `sample_query`."""
ACCEPTED = exists().where(Example.sample_id == Sample.id)
CURATED = exists().where(Manifest.round_id == Sample.round_id)

SampleQuery = Select[Sample, int, int, Prompt, float | None, Assessment, bool, bool]


def samples_page(
    session: Session,
    run_id: int,
    *,
    round_index: int | None = None,
    accepted: bool | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Samples with an id above `after`, by id. See `sample_row` for the keys; `accepted` filters to those that became,
    or did not become, training rows."""
    query = sample_query(session, run_id).where(Sample.id > after).order_by(Sample.id).limit(limit)
    if round_index is not None:
        query = query.where(Round.index == round_index)
    if accepted is not None:
        query = query.where(ACCEPTED if accepted else ~ACCEPTED)
    return [sample_row(*row) for row in session.execute(query)]


def sample_detail(session: Session, run_id: int, sample_id: int) -> dict[str, Any] | None:
    """One sample with its image-token ids and every assessment of it; None where there is no such sample.

    "edit" is None, or what an edited sample was made of: instruction, target and source image.
    """
    found = session.execute(sample_query(session, run_id).where(Sample.id == sample_id)).first()
    if found is None:
        return None
    query = (
        select(
            Assessment.assessor,
            ModelVersion.number,
            Assessment.state,
            Assessment.score,
            Assessment.failed_criteria,
            Assessment.error,
            Assessment.probability,
            Assessment.details,
            Assessment.critique,
        )
        .outerjoin(ModelVersion, ModelVersion.id == Assessment.model_version_id)
        .where(Assessment.sample_id == sample_id)
        .order_by(Assessment.id)
    )
    assessments = [
        {
            "assessor": assessor,
            "model": version_name(number) if number is not None else None,
            "state": state,
            "score": score,
            "failed": failed,
            "error": error,
            "probability": probability,
            "readings": details.get("readings", {}),
            "questions": details.get("questions", []),
            "critique": critique,
        }
        for assessor, number, state, score, failed, error, probability, details, critique in session.execute(query)
    ]
    sample: Sample = found[0]
    prompt: Prompt = found[3]
    edit = {name: getattr(prompt, name) for name in EDIT} if prompt.instruction else None
    return sample_row(*found) | {"image_ids": sample.image_ids.tolist(), "edit": edit, "assessments": assessments}


def lineage(session: Session, run_id: int, sample_id: int) -> dict[str, Any] | None:
    """Both ways from a sample; None where there is none.

    "from": the prompt (of an edit, its source image too), the model version that drew it and that version's ancestors,
    youngest first. "to": each manifest that holds it, with the kinds of its rows and the model version that learned
    from it.
    """
    detail = sample_detail(session, run_id, sample_id)
    if detail is None:
        return None
    origin = {key: detail[key] for key in ("round", "prompt", "key", "edit", "sample_index", "seed", "model")}
    origin["ancestors"] = _ancestors(session, run_id, detail["model"])
    return {"id": sample_id, "from": origin, "to": _descendants(session, sample_id)}


def sample_query(session: Session, run_id: int) -> SampleQuery:
    """The samples of a run, each with what `sample_row` takes."""
    assessor = session.get_one(Run, run_id).settings["assess"]["assessor"]
    own = scored_by(assessor)
    return (
        select(Sample, Round.index, ModelVersion.number, Prompt, JUDGE.score, CHECKER, ACCEPTED, CURATED)
        .join(Round, Round.id == Sample.round_id)
        .join(ModelVersion, ModelVersion.id == Sample.model_version_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .outerjoin(JUDGE, (JUDGE.sample_id == Sample.id) & (JUDGE.assessor == own))
        .outerjoin(CHECKER, (CHECKER.sample_id == Sample.id) & (CHECKER.assessor == "checker"))
        .where(Round.run_id == run_id)
    )


def sample_row(
    sample: Sample,
    round_index: int,
    version: int,
    prompt: Prompt,
    score: float | None,
    checker: Assessment | None,
    accepted: bool,
    curated: bool,
) -> dict[str, Any]:
    """`score` is the run's assessor's (None while unassessed, or failed), `passed` and `failed` are the checker's,
    `accepted` is None before the round is curated."""
    return {
        "id": sample.id,
        "round": round_index,
        "model": version_name(version),
        "prompt": prompt.text,
        "key": prompt.key,
        "category": prompt.category,
        "sample_index": sample.sample_index,
        "seed": sample.seed,
        "staleness": sample.staleness,
        "score": score,
        "passed": checker.score == 1.0 if checker is not None and checker.score is not None else None,
        "failed": checker.failed_criteria if checker is not None else [],
        "accepted": bool(accepted) if curated else None,
        "image_sha256": sample.image_sha256,
    }


def _ancestors(session: Session, run_id: int, name: str) -> list[str]:
    query = select(ModelVersion).where(ModelVersion.run_id == run_id)
    by_id = {version.id: version for version in session.scalars(query)}
    version = next(version for version in by_id.values() if version.name == name)
    names = []
    while version.parent_id is not None:
        version = by_id[version.parent_id]
        names.append(version.name)
    return names


def _descendants(session: Session, sample_id: int) -> list[dict[str, Any]]:
    query = (
        select(Round.index, Manifest.sha256, ModelVersion.number, Example.kind, Example.rejected_id)
        .select_from(Example)
        .join(Manifest, Manifest.id == Example.manifest_id)
        .join(Round, Round.id == Manifest.round_id)
        .outerjoin(ModelVersion, ModelVersion.id == Round.candidate_version_id)
        .where(or_(Example.sample_id == sample_id, Example.rejected_id == sample_id))
        .order_by(Round.index, Example.position)
    )
    found: dict[int, dict[str, Any]] = {}
    for index, sha256, number, kind, rejected_id in session.execute(query):
        model = version_name(number) if number is not None else None
        entry = found.setdefault(index, {"round": index, "manifest_sha256": sha256, "model": model, "kinds": []})
        entry["kinds"].append("rejected" if rejected_id == sample_id else kind)
    return list(found.values())
