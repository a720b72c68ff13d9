"""Manifests with their training rows, and the checkpoints that a training keeps of itself.

A manifest is added once; nothing changes it afterwards. Rows of checkpoints are fenced by the lease of their unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from illume_db.leases import Lease, hold_lease
from illume_db.tables import Example, Manifest, Round, TrainingCheckpoint


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


def keep_training_checkpoint(
    session: Session, lease: Lease, *, step: int, folder: str, files: dict[str, Any], at: datetime
) -> int:
    """Add a checkpoint's row; its id. Raises FencedOutError where the lease is lost."""
    hold_lease(session, lease)
    row = TrainingCheckpoint(round_id=lease.round_id, step=step, folder=folder, files=files, created_at=at)
    session.add(row)
    session.flush()
    return row.id


def mark_checkpoints(session: Session, ids: Sequence[int], state: str) -> None:
    """Set the state of checkpoints: `damaged` or `dropped`."""
    session.execute(update(TrainingCheckpoint).where(TrainingCheckpoint.id.in_(ids)).values(state=state))


def drop_checkpoints_of_round(session: Session, round_id: int) -> None:
    """Let no training of the round go on from what it kept."""
    of_round = (TrainingCheckpoint.round_id == round_id, TrainingCheckpoint.state != "dropped")
    session.execute(update(TrainingCheckpoint).where(*of_round).values(state="dropped"))


def drop_checkpoints_of_run(session: Session, run_id: int) -> int:
    """Let the run's trainings begin anew: none of their checkpoints counts any more. How many there were."""
    rounds = select(Round.id).where(Round.run_id == run_id)
    rows = session.scalars(
        select(TrainingCheckpoint).where(TrainingCheckpoint.round_id.in_(rounds), TrainingCheckpoint.state != "dropped")
    ).all()
    mark_checkpoints(session, [row.id for row in rows], "dropped")
    return len(rows)


def checkpoints_of_training(session: Session, round_id: int) -> Sequence[TrainingCheckpoint]:
    """The checkpoints of a round's training that were not dropped, damaged ones too, the newest first."""
    query = select(TrainingCheckpoint).where(
        TrainingCheckpoint.round_id == round_id, TrainingCheckpoint.state != "dropped"
    )
    return session.scalars(query.order_by(TrainingCheckpoint.step.desc(), TrainingCheckpoint.id.desc())).all()
