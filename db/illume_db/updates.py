"""Updates of reinforcement learning: add them with their rollouts, read what earlier ones left, and show them.

Invariants:

- An update is added once, with all of its rollouts, in the transaction that ends its unit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select, tuple_, update
from sqlalchemy.orm import Session

from illume_db.prompts import COLUMNS, PromptRow
from illume_db.tables import (
    Assessment,
    PendingRollout,
    Prompt,
    Rollout,
    Round,
    Sample,
    TrainingCheckpoint,
    Unit,
    Update,
    UpdateGroup,
)


@dataclass(frozen=True, slots=True)
class NewUpdate:
    """An update to add, with the fields of `illume_db.tables.Update`."""

    index: int
    rewards: Mapping[str, float | None]
    checked: float | None
    num_samples: int
    num_learned: int
    num_groups: int
    num_without_variance: int
    num_with_too_few: int
    entropy: float
    kl: float | None
    clipped: float
    grad_norm: float
    gap: float
    seconds: Mapping[str, float]
    staleness: int = 0
    policy_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class NewGroup:
    """A group to add: the samples of one prompt in an update."""

    prompt_id: int
    num_scored: int
    spreads: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class NewRollout:
    """A rollout to add; `log_probs` has shape (L,)."""

    sample_id: int
    log_probs: NDArray[np.float32]
    advantage: float | None


def add_update(
    session: Session,
    round_id: int,
    new: NewUpdate,
    groups: Sequence[NewGroup],
    rollouts: Sequence[NewRollout],
    *,
    at: datetime,
) -> None:
    """Add an update with its groups and rollouts, in order, and count the samples that it learned from.

    The rollouts take the place of those that were pending. A second update with the same natural key violates its
    primary key.
    """
    of_update = {"round_id": round_id, "update_index": new.index}
    values = asdict(new) | {"rewards": dict(new.rewards), "seconds": dict(new.seconds)}
    session.execute(insert(Update).values(round_id=round_id, created_at=at, **values))
    session.execute(
        insert(UpdateGroup),
        [of_update | {"position": i} | asdict(group) for i, group in enumerate(groups)],
    )
    session.execute(
        insert(Rollout), [of_update | {"position": i} | asdict(rollout) for i, rollout in enumerate(rollouts)]
    )
    pending = (PendingRollout.round_id == round_id, PendingRollout.update_index == new.index)
    session.execute(delete(PendingRollout).where(*pending))
    more = update(Round).where(Round.id == round_id)
    session.execute(more.values(num_accepted=Round.num_accepted + new.num_learned))


def sample_ids(session: Session, round_id: int, first_index: int, stop_index: int) -> dict[tuple[int, int], int]:
    """Return the ids of a round's samples with these sample indexes, by (prompt id, sample index)."""
    query = select(Sample.prompt_id, Sample.sample_index, Sample.id).where(
        Sample.round_id == round_id, Sample.sample_index >= first_index, Sample.sample_index < stop_index
    )
    return {(prompt_id, index): id_ for prompt_id, index, id_ in session.execute(query)}


def add_pending_rollouts(
    session: Session, round_id: int, update_index: int, first: int, log_probs: Mapping[int, NDArray[np.float32]]
) -> None:
    """Add rollouts at the positions from `first` on; `log_probs` has those of each sample by its id, in order."""
    of_update = {"round_id": round_id, "update_index": update_index}
    rows = [
        of_update | {"position": first + i, "sample_id": id_, "log_probs": log_probs_L}
        for i, (id_, log_probs_L) in enumerate(log_probs.items())
    ]
    session.execute(insert(PendingRollout), rows)


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A sample that waits for its update. `scores` are those of the scorers that could score it, by scorer."""

    sample_id: int
    position: int
    sample_index: int
    seed: int
    image_ids: NDArray[np.int32]
    image_sha256: str
    log_probs: NDArray[np.float32]
    prompt: PromptRow
    scores: dict[str, float] = field(default_factory=dict)


def pending_rollouts(
    session: Session, round_id: int, update_index: int, first: int = 0, stop: int | None = None
) -> list[PendingRow]:
    """Return the samples that wait for an update, at positions first <= position < stop, in order."""
    of_update = [PendingRollout.round_id == round_id, PendingRollout.update_index == update_index]
    of_update.append(PendingRollout.position >= first)
    if stop is not None:
        of_update.append(PendingRollout.position < stop)
    query = (
        select(
            PendingRollout.sample_id,
            PendingRollout.position,
            Sample.sample_index,
            Sample.seed,
            Sample.image_ids,
            Sample.image_sha256,
            PendingRollout.log_probs,
            *COLUMNS,
        )
        .join(Sample, Sample.id == PendingRollout.sample_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .where(*of_update)
        .order_by(PendingRollout.position)
    )
    found = {
        id_: PendingRow(id_, position, index, seed, ids, sha256, log_probs, PromptRow(*prompt))
        for id_, position, index, seed, ids, sha256, log_probs, *prompt in session.execute(query)
    }
    scored = (
        select(Assessment.sample_id, Assessment.assessor, Assessment.score)
        .join(PendingRollout, PendingRollout.sample_id == Assessment.sample_id)
        .where(*of_update)
    )
    for sample_id, assessor, score in session.execute(scored):
        if score is not None:
            found[sample_id].scores[assessor] = score
    return list(found.values())


def seconds_of_units(session: Session, round_id: int, kind: str, first_row: int, stop_row: int) -> float:
    """Return the seconds that workers took for the units of a kind that begin in these rows."""
    of_rows = (Unit.round_id == round_id, Unit.kind == kind, Unit.first_row >= first_row, Unit.first_row < stop_row)
    return session.scalar(select(func.sum(Unit.seconds)).where(*of_rows)) or 0.0


def policies_of(session: Session, round_id: int) -> dict[int, str]:
    """Return the sha256 of the policies that a round's updates published, by the update's index."""
    query = select(Update.index, Update.policy_sha256).where(Update.round_id == round_id)
    return {index: sha256 for index, sha256 in session.execute(query.order_by(Update.index)) if sha256 is not None}


@dataclass(frozen=True, slots=True)
class GroupRow:
    """An earlier group: its prompt's text and category, and the spread of its rewards by scorer."""

    text: str
    category: str
    spreads: dict[str, float]


def groups_before(session: Session, run_id: int, round_index: int, update_index: int) -> list[GroupRow]:
    """Return the groups with enough scores of all updates of a run before this one, in order."""
    query = (
        select(Prompt.text, Prompt.category, UpdateGroup.spreads)
        .join(Round, Round.id == UpdateGroup.round_id)
        .join(Prompt, Prompt.id == UpdateGroup.prompt_id)
        .where(
            Round.run_id == run_id,
            tuple_(Round.index, UpdateGroup.update_index) < tuple_(round_index, update_index),
        )
        .order_by(Round.index, UpdateGroup.update_index, UpdateGroup.position)
    )
    return [GroupRow(*row) for row in session.execute(query) if row[2]]


def first_entropy(session: Session, run_id: int) -> float | None:
    """Return the entropy of a run's first update; None before it."""
    query = select(Update.entropy).join(Round, Round.id == Update.round_id).where(Round.run_id == run_id)
    return session.scalar(query.order_by(Round.index, Update.index).limit(1))


def num_updates(session: Session, round_id: int) -> int:
    """Return how many updates of a round are stored."""
    return session.scalar(select(func.count()).select_from(Update).where(Update.round_id == round_id)) or 0


@dataclass(frozen=True, slots=True)
class LearnedRow:
    """A rollout that an update learned from."""

    prompt: str
    image_ids: NDArray[np.int32]
    log_probs: NDArray[np.float32]
    advantage: float


def learned_rollouts(session: Session, round_id: int, update_index: int) -> list[LearnedRow]:
    """Return the rollouts that an update learned from, in order."""
    query = (
        select(Prompt.text, Sample.image_ids, Rollout.log_probs, Rollout.advantage)
        .join(Sample, Sample.id == Rollout.sample_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .where(Rollout.round_id == round_id, Rollout.update_index == update_index, Rollout.advantage.is_not(None))
        .order_by(Rollout.position)
    )
    return [
        LearnedRow(text, ids, log_probs, advantage or 0.0) for text, ids, log_probs, advantage in session.execute(query)
    ]


def policy_states(session: Session, run_id: int) -> Sequence[TrainingCheckpoint]:
    """Return the saved states of a run's policies, also those that were dropped.

    The checkpoints of rounds without updates are left out.
    """
    of_updates = select(Update.round_id).where(Update.round_id == TrainingCheckpoint.round_id).exists()
    query = select(TrainingCheckpoint).join(Round, Round.id == TrainingCheckpoint.round_id)
    return session.scalars(query.where(Round.run_id == run_id, of_updates).order_by(TrainingCheckpoint.id)).all()


def updates_table(session: Session, round_id: int) -> list[dict[str, Any]]:
    """Return one object per update of a round, in order, with the fields of `illume_db.tables.Update`."""
    query = select(Update).where(Update.round_id == round_id).order_by(Update.index)
    return [_shown(row) for row in session.scalars(query)]


def _shown(row: Update) -> dict[str, Any]:
    shown = {column.name: getattr(row, column.name) for column in Update.__table__.columns}
    del shown["round_id"]
    return shown | {"created_at": row.created_at.isoformat()}
