"""Manifests with their training rows, and the checkpoints of trainings that are under way.

Invariants:

- A manifest is added once and never changed.
- The row of a checkpoint is added under the lease of its unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from illume_db.leases import Lease, lock_leased_unit
from illume_db.tables import Example, Manifest, Round, TrainingCheckpoint


@dataclass(frozen=True, slots=True)
class NewExample:
    """A training row to add, of a sample or of a real pair.

    A sample's row has `sample_id`, `prompt_id` and `ids_sha256`; a real pair's has `real_index`. A preference also has
    the two fields of the rejected sample. An assessment also has its answer.
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
    """Add the manifest of a round; positions follow the order of `examples`, and `counts` are stored unchanged."""
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
    """Return the manifest of a round. Raises NoResultFound if the round has none."""
    return session.scalars(select(Manifest).where(Manifest.round_id == round_id)).one()


def keep_training_checkpoint(
    session: Session, lease: Lease, *, step: int, folder: str, files: dict[str, Any], at: datetime
) -> int:
    """Add a checkpoint's row and return its id. Raises FencedOutError if the lease is lost."""
    lock_leased_unit(session, lease)
    return add_training_checkpoint(session, lease.round_id, step=step, folder=folder, files=files, at=at)


def add_training_checkpoint(
    session: Session, round_id: int, *, step: int, folder: str, files: dict[str, Any], at: datetime
) -> int:
    """Add a checkpoint's row and return its id. The caller holds the unit, or is just ending it."""
    row = TrainingCheckpoint(round_id=round_id, step=step, folder=folder, files=files, created_at=at)
    session.add(row)
    session.flush()
    return row.id


def mark_checkpoints(session: Session, ids: Sequence[int], state: str) -> None:
    """Set the state of checkpoints: `damaged` or `dropped`."""
    session.execute(update(TrainingCheckpoint).where(TrainingCheckpoint.id.in_(ids)).values(state=state))


def drop_checkpoints_of_round(session: Session, round_id: int) -> None:
    """Mark all checkpoints of the round's training as dropped, so that no training resumes from them."""
    of_round = (TrainingCheckpoint.round_id == round_id, TrainingCheckpoint.state != "dropped")
    session.execute(update(TrainingCheckpoint).where(*of_round).values(state="dropped"))


def drop_checkpoints_of_run(session: Session, run_id: int) -> int:
    """Mark all checkpoints of the run as dropped, so that its trainings start over; return their number."""
    rounds = select(Round.id).where(Round.run_id == run_id)
    rows = session.scalars(
        select(TrainingCheckpoint).where(TrainingCheckpoint.round_id.in_(rounds), TrainingCheckpoint.state != "dropped")
    ).all()
    mark_checkpoints(session, [row.id for row in rows], "dropped")
    return len(rows)


def checkpoints_of_training(session: Session, round_id: int) -> Sequence[TrainingCheckpoint]:
    """Return the checkpoints of a round's training that were not dropped, damaged ones included, newest first."""
    query = select(TrainingCheckpoint).where(
        TrainingCheckpoint.round_id == round_id, TrainingCheckpoint.state != "dropped"
    )
    return session.scalars(query.order_by(TrainingCheckpoint.step.desc(), TrainingCheckpoint.id.desc())).all()
