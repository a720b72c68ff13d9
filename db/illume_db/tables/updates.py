"""Tables of reinforcement learning: the updates of a round, the groups that they drew, and their rollouts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import CheckConstraint, ForeignKey, ForeignKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from illume_db.types import Base, BigId, LogProbsType, Sha256


class Update(Base):
    """One update of the policy in a round; (round, index) is its natural key, and the index counts from 1.

    - `rewards` is the mean reward by scorer, over the samples that the scorer could score; null if it scored none.
      `checked` is the checker's share of right samples, as a measurement.
    - `num_samples` were drawn in `num_groups` groups, and `num_learned` of them were learned from. Groups without
      variance, and those with fewer than two scored samples, were left out.
    - `entropy` is that of the policy that drew, and `kl` its divergence from the base, in nats per image token. `kl` is
      NULL if the settings leave it out, or if the update learned from no sample.
    - `clipped` is the share of tokens whose ratio was clipped. `grad_norm` is the gradient's norm before it was cut.
    - `gap` is the largest difference between a log-probability at drawing and at learning.
    - `staleness` is the number of updates by which the drawing policy was behind.
    - `policy_sha256` names the policy's weights in the artifact store, for the workers that draw; NULL if none do.
    - `seconds` are by part: draw, score, learn and store. They leave out the commit of the row itself.

    A trigger refuses every change.
    """

    __tablename__ = "updates"
    __table_args__ = (
        CheckConstraint('"index" >= 1', name="index_from_one"),
        CheckConstraint("staleness >= 0", name="staleness_counts"),
    )

    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"), primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True)
    rewards: Mapped[dict[str, Any]]
    checked: Mapped[float | None]
    num_samples: Mapped[int]
    num_learned: Mapped[int]
    num_groups: Mapped[int]
    num_without_variance: Mapped[int]
    num_with_too_few: Mapped[int]
    entropy: Mapped[float]
    kl: Mapped[float | None]
    clipped: Mapped[float]
    grad_norm: Mapped[float]
    gap: Mapped[float]
    staleness: Mapped[int]
    policy_sha256: Mapped[str | None] = mapped_column(Sha256)
    seconds: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class UpdateGroup(Base):
    """The samples of one prompt in one update; `spreads` is the standard deviation of their rewards by scorer.

    `spreads` is empty if fewer than two samples were scored. Later updates choose their prompts by it. `position` is
    the order in which the prompts were chosen.
    """

    __tablename__ = "update_groups"
    __table_args__ = (
        ForeignKeyConstraint(["round_id", "update_index"], ["updates.round_id", "updates.index"]),
        ForeignKeyConstraint(["round_id", "prompt_id"], ["round_prompts.round_id", "round_prompts.prompt_id"]),
        UniqueConstraint("round_id", "update_index", "position"),
    )

    round_id: Mapped[int] = mapped_column(BigId, primary_key=True)
    update_index: Mapped[int] = mapped_column(primary_key=True)
    prompt_id: Mapped[int] = mapped_column(BigId, primary_key=True)
    position: Mapped[int]
    num_scored: Mapped[int]
    spreads: Mapped[dict[str, Any]]


class PendingRollout(Base):
    """A sample that an update waits to learn from; the update's transaction turns it into a `Rollout`.

    `position` is the sample's place in the update, and `log_probs` are as those of `Rollout`.
    """

    __tablename__ = "pending_rollouts"
    __table_args__ = (UniqueConstraint("round_id", "update_index", "position"),)

    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), primary_key=True)
    round_id: Mapped[int] = mapped_column(ForeignKey("rounds.id"))
    update_index: Mapped[int]
    position: Mapped[int]
    log_probs: Mapped[NDArray[np.float32]] = mapped_column(LogProbsType)


class Rollout(Base):
    """A sample that an update drew; with its sample index it is keyed by (round, update, prompt, index).

    `log_probs` are the log-probabilities of its image-token ids by the policy that drew it. `advantage` is NULL if the
    update did not learn from the sample. A trigger refuses every change.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        ForeignKeyConstraint(["round_id", "update_index"], ["updates.round_id", "updates.index"]),
        UniqueConstraint("round_id", "update_index", "position"),
    )

    sample_id: Mapped[int] = mapped_column(ForeignKey("samples.id"), primary_key=True)
    round_id: Mapped[int] = mapped_column(BigId)
    update_index: Mapped[int]
    position: Mapped[int]
    log_probs: Mapped[NDArray[np.float32]] = mapped_column(LogProbsType)
    advantage: Mapped[float | None]
