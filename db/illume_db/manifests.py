"""Manifests: add one with its training rows, once; nothing changes them afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import insert, select, union_all
from sqlalchemy.orm import Session

from illume_db.curation import SampleRow, _sample_rows
from illume_db.tables import Example, Manifest, Sample


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


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """A row of a manifest; `sample` is None for a replayed real pair.

    `rejected` is the worse sample of a preference or of a correction, `answer` what is said in an assessment.
    """

    kind: str
    text: str
    real_index: int | None
    sample: SampleRow | None
    rejected: SampleRow | None = None
    answer: str | None = None


def examples_of(session: Session, manifest_id: int) -> list[ExampleRow]:
    """The rows of a manifest in order."""
    query = select(Example).where(Example.manifest_id == manifest_id).order_by(Example.position)
    columns = Example.sample_id, Example.rejected_id
    named = union_all(*(select(column).where(Example.manifest_id == manifest_id) for column in columns))
    samples: dict[int | None, SampleRow] = {
        row[0]: SampleRow(*row) for row in session.execute(_sample_rows().where(Sample.id.in_(named)))
    }
    return [
        ExampleRow(
            row.kind, row.text, row.real_index, samples.get(row.sample_id), samples.get(row.rejected_id), row.answer
        )
        for row in session.scalars(query)
    ]
