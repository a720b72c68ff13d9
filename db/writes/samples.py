"""Adding samples and assessments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert
from sqlalchemy.orm import Session

from db.models import Assessment, Sample
from db.writes.rounds import count_samples


@dataclass(frozen=True, slots=True)
class NewSample:
    """A drawn image; `image_ids` has shape (L,), `image_sha256` names its PNG in the artifact store."""

    prompt_id: int
    sample_index: int
    seed: int
    image_ids: NDArray[np.int32]
    image_sha256: str


@dataclass(frozen=True, slots=True)
class NewAssessment:
    """What one assessor said; `score` exactly when `state` is ok. For the rest see `db.models.Assessment`."""

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
    """Add assessments. A second one of a sample by the same assessor and model violates a unique constraint."""
    if assessments:
        session.execute(insert(Assessment), [asdict(assessment) for assessment in assessments])
