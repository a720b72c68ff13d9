"""Manifests: add one with its training rows, once; nothing changes them afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from illume_db.tables import Example, Manifest


@dataclass(frozen=True, slots=True)
class NewExample:
    """One training row: of a sample (then the three fields of the sample are set), or of a real pair.

    A preference has the rejected sample's two fields besides, an assessment its answer.
    """

    kind: str
    text: str
    sample_id: int | None = None
    prompt_id: int | None = None
    ids_sha256: str | None = None
    real_index: int | None = None
    rejected_id: int | None = None
    rejected_sha256: str | None = None
    answer: str | None = None


def add_manifest(
    session: Session,
    round_id: int,
    sha256: str,
    examples: Sequence[NewExample],
    *,
    at: datetime,
    counts: Mapping[str, int] | None = None,
) -> Manifest:
    """Add the manifest of a round; positions follow the order of `examples`, `counts` are kept as they are."""
    manifest = Manifest(
        round_id=round_id, sha256=sha256, num_rows=len(examples), counts=dict(counts or {}), created_at=at
    )
    session.add(manifest)
    session.flush()
    rows = [
        {"manifest_id": manifest.id, "position": position, "split": "train", **asdict(example)}
        for position, example in enumerate(examples)
    ]
    if rows:
        session.execute(insert(Example), rows)
    return manifest


def manifest_of(session: Session, round_id: int) -> Manifest:
    """The manifest of a round that has one."""
    return session.scalars(select(Manifest).where(Manifest.round_id == round_id)).one()
