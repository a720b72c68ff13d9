"""Samples and assessments: add them, list pages of them, and follow the lineage of one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, exists, insert, or_, select
from sqlalchemy.orm import Session, aliased

from illume_db.curation import scored_by
from illume_db.prompts import PromptRow
from illume_db.rounds import count_samples
from illume_db.tables import (
    Assessment,
    Example,
    Manifest,
    ModelVersion,
    Prompt,
    Rollout,
    Round,
    RoundPrompt,
    Run,
    Sample,
)
from illume_db.tables.versions import version_name


@dataclass(frozen=True, slots=True)
class NewSample:
    """A drawn image to add; `image_ids` has shape (L,), and `image_sha256` names its PNG in the artifact store."""

    prompt_id: int
    sample_index: int
    seed: int
    image_ids: NDArray[np.int32]
    image_sha256: str


@dataclass(frozen=True, slots=True)
class NewAssessment:
    """An assessment to add, with the fields of `illume_db.tables.Assessment`; only the state `ok` has a score."""

    sample_id: int
    assessor: str
    state: str
    score: float | None
    model_version_id: int | None = None
    failed_criteria: list[str] = field(default_factory=list)
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    critique: dict[str, Any] | None = None
    probability: float | None = None


def add_samples(
    session: Session,
    round_id: int,
    model_version_id: int,
    samples: Sequence[NewSample],
    *,
    at: datetime,
    staleness: int = 0,
) -> None:
    """Add samples and count them. A second sample with one natural key violates a unique constraint."""
    rows = [
        {
            "round_id": round_id,
            "model_version_id": model_version_id,
            "created_at": at,
            "staleness": staleness,
            "prompt_id": sample.prompt_id,
            "sample_index": sample.sample_index,
            "seed": sample.seed,
            "image_ids": sample.image_ids,
            "image_sha256": sample.image_sha256,
        }
        for sample in samples
    ]
    session.execute(insert(Sample), rows)
    count_samples(session, round_id, len(rows))


def add_assessments(session: Session, assessments: Sequence[NewAssessment]) -> None:
    """Add assessments. A second one of the same sample by the same assessor and model violates a unique constraint."""
    if assessments:
        session.execute(insert(Assessment), [asdict(assessment) for assessment in assessments])


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A sample with its prompt."""

    sample_id: int
    sample_index: int
    image_sha256: str
    prompt: PromptRow


def samples_of(session: Session, round_id: int, prompts: Sequence[PromptRow]) -> list[DrawnRow]:
    """Return the samples of a round for consecutive `prompts`, ordered by position and sample index."""
    by_id = {prompt.id: prompt for prompt in prompts}
    query = (
        select(Sample.id, Sample.sample_index, Sample.image_sha256, Sample.prompt_id)
        .join(RoundPrompt, (RoundPrompt.round_id == Sample.round_id) & (RoundPrompt.prompt_id == Sample.prompt_id))
        .where(
            Sample.round_id == round_id,
            RoundPrompt.position >= prompts[0].position,
            RoundPrompt.position <= prompts[-1].position,
        )
        .order_by(RoundPrompt.position, Sample.sample_index)
    )
    return [DrawnRow(id_, index, sha256, by_id[prompt_id]) for id_, index, sha256, prompt_id in session.execute(query)]


def verdicts(session: Session, round_id: int) -> dict[int, bool]:
    """Return the checker's verdict on each sample of a round that it could check, by sample id."""
    query = (
        select(Assessment.sample_id, Assessment.score)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Assessment.assessor == "checker", Assessment.state == "ok")
    )
    return {sample_id: score == 1.0 for sample_id, score in session.execute(query)}


EDIT = ("instruction", "target", "source_sha256")

JUDGE, CHECKER = aliased(Assessment), aliased(Assessment)
"""The assessments of the run's assessor and of the checker in `sample_query`."""

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
    """Return samples with an id above `after`, by id; see `sample_row` for the keys.

    `accepted` keeps the samples that became training rows (True), or those that did not (False).
    """
    query = sample_query(session, run_id).where(Sample.id > after).order_by(Sample.id).limit(limit)
    if round_index is not None:
        query = query.where(Round.index == round_index)
    if accepted is not None:
        query = query.where(ACCEPTED if accepted else ~ACCEPTED)
    return [sample_row(*row) for row in session.execute(query)]


def sample_detail(session: Session, run_id: int, sample_id: int) -> dict[str, Any] | None:
    """Return one sample with its image-token ids and all its assessments; None if there is no such sample.

    "edit" holds the instruction, target and source image of an edit; it is None for other samples.
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
    """Return where a sample came from and what was trained on it; None if there is no such sample.

    "from" holds the prompt (and the source image of an edit), the model version that drew the sample, and that
    version's ancestors, youngest first. "to" lists each manifest with the sample, with the kinds of its rows and the
    model version that was trained on it; or the update that learned from the sample, without a manifest.
    """
    detail = sample_detail(session, run_id, sample_id)
    if detail is None:
        return None
    origin = {key: detail[key] for key in ("round", "prompt", "key", "edit", "sample_index", "seed", "model")}
    origin["ancestors"] = _ancestors(session, run_id, detail["model"])
    return {"id": sample_id, "from": origin, "to": _descendants(session, sample_id)}


def sample_query(session: Session, run_id: int) -> SampleQuery:
    """Return a query for the samples of a run, which selects the arguments of `sample_row`."""
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
    """Return one object for a sample.

    `score` is that of the run's assessor; it is None unless its assessment is ok. `passed` and `failed` are the
    checker's. `accepted` is None before the round is curated.
    """
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
    return list(found.values()) + _update_that_learned(session, sample_id)


def _update_that_learned(session: Session, sample_id: int) -> list[dict[str, Any]]:
    query = (
        select(Round.index, Rollout.update_index, ModelVersion.number)
        .select_from(Rollout)
        .join(Round, Round.id == Rollout.round_id)
        .outerjoin(ModelVersion, ModelVersion.id == Round.candidate_version_id)
        .where(Rollout.sample_id == sample_id, Rollout.advantage.is_not(None))
    )
    return [
        {
            "round": index,
            "manifest_sha256": None,
            "model": version_name(number) if number is not None else None,
            "kinds": [f"update {update}"],
        }
        for index, update, number in session.execute(query)
    ]
