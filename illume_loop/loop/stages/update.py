"""Do one update of a round of reinforcement learning: take the scored samples, learn from them, and store.

The trainer draws and scores the samples itself, or workers have done it in units of their own (stages/rollouts.py).

Invariants:

- An update is stored in one transaction with its rollouts, the samples that it drew and the policy's state, so no
  sample counts twice.
- The prompts of an update follow from the seed and from stored rewards alone, and its samples from the policy that the
  update before left. So a killed update is done again with the same result.
- The scorer `self` is the version that the round began with. It is stored and does not move within a round.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from sqlalchemy.orm import Session

from illume_db.leases import Lease
from illume_db.prompts import PromptRow
from illume_db.rounds import round_of
from illume_db.samples import add_assessments
from illume_db.sessions import transaction
from illume_db.tables import Round
from illume_db.updates import (
    NewGroup,
    NewRollout,
    NewUpdate,
    add_update,
    first_entropy,
    num_updates,
    pending_rollouts,
    seconds_of_units,
)
from illume_db.versions import base_version, version_of
from illume_loop.charts.strip import strip
from illume_loop.errors import EntropyRunawayError, InconsistentRunError
from illume_loop.loop.candidates import publish_candidate
from illume_loop.loop.context import LivePolicy, RunContext
from illume_loop.loop.policies import Policies, drop_policies, keep_state, publish_policy, save_policy
from illume_loop.loop.rollouts import (
    add_drawn,
    draw_rows,
    new_samples,
    prompts_of_update,
    rows_of_update,
    score_images,
    staleness_of,
)
from illume_loop.loop.unit_inputs import Effect, OnItems, derived_seed
from illume_loop.protocols import ImageIds, LogProbs
from illume_loop.settings import Settings
from illume_loop.train.advantages import Advantages, Rewards, group_advantages, shuffled_in_groups
from illume_loop.train.trackers import track_update

if TYPE_CHECKING:
    from illume_loop.train.grpo import Policy, Rollout

PICTURED_UPDATES, PICTURED_PROMPTS, PICTURED_SAMPLES = 5, 4, 8
"""A tracker gets a picture of every fifth update and of the last one, with up to eight samples of four prompts."""


@dataclass(slots=True)
class Clock:
    """The seconds of each part of an update."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time in the block to a part."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)


@dataclass(slots=True)
class Experience:
    """The scored samples of an update, B of them: prompts x samples of a prompt, without those that could not be drawn.

    `positions` are their places among all of the update's samples, group by group. `rewards` have the shape (prompts,
    samples of a prompt) by scorer, with NaN where a score is missing. `store` adds to the database what is not there
    yet, and returns the ids of the samples. `image_at` returns the image of a sample by its place among the B.
    """

    chosen: list[PromptRow]
    positions: list[int]
    ids_BL: ImageIds
    log_probs_BL: LogProbs
    rewards: dict[str, Rewards]
    store: Callable[[Session], list[int]]
    image_at: Callable[[int], Image.Image]

    @property
    def entropy(self) -> float:
        """The estimated entropy of the policy that drew, in nats per image token."""
        return -float(self.log_probs_BL.mean(dtype=np.float64))


def advantages_of(settings: Settings, rewards: Mapping[str, Rewards], seed: int) -> Advantages:
    """Return the advantages of an update's samples by the settings; `seed` is that of the shuffled control."""
    grpo = settings.grpo
    given = {name: rewards[name] for name in grpo.weights}
    given = shuffled_in_groups(given, seed) if grpo.shuffled else given
    return group_advantages(given, grpo.weights, normalise=grpo.advantage == "normalised")


def update(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Do one update; the last one of a round also publishes the policy as the round's candidate.

    Raises EntropyRunawayError, TrainingDivergedError, and InconsistentRunError if the updates before are not stored.
    """
    settings, index, clock = context.settings, int(lease.payload["update"]), Clock()
    with transaction(context.engine) as session:
        round_ = round_of(session, lease.round_id)
        num_done = num_updates(session, round_.id)
        chosen = prompts_of_update(context, session, round_, index)
        first = first_entropy(session, context.run_id)
    if num_done != index - 1:
        raise InconsistentRunError(what=f"update {index} of round {round_.index} is due after {num_done} updates")
    still_wanted = partial(on_items, 0, 1)
    policy = Policies(context).before(round_, index)
    context.live_policy = None  # from here on its weights may be between two states
    still_wanted()
    if settings.grpo.rollouts == "workers":
        gained = _of_workers(context, lease, round_, chosen, clock)
    else:
        gained = _drawn_here(context, policy, round_, chosen, index, clock, still_wanted)
    _refuse_runaway(gained.entropy, first, index, settings.grpo.max_entropy_ratio)
    found = advantages_of(settings, gained.rewards, derived_seed("shuffle", settings.run.seed, round_.index, index))
    with clock.part("learn"):
        report = policy.learn(_rollouts(gained, found))
    still_wanted()
    with clock.part("store"):
        saved = save_policy(context, policy, lease)
        sha256 = None
        if settings.grpo.rollouts == "workers":
            sha256 = publish_policy(context, policy)
            drop_policies(context, round_, index, sha256)
        live = LivePolicy(str(saved.folder), policy, sha256)
        publish: Effect | None = None
        if index == settings.grpo.updates:
            with transaction(context.engine) as session:
                parent = version_of(session, round_.parent_version_id)
            origin = f"{index} updates of {parent.name}"
            publish = publish_candidate(context, round_, origin, policy.publish)  # the policy is of no use afterwards
    row = NewUpdate(
        index=index,
        rewards={name: _mean(gained.rewards[name]) for name in settings.grpo.weights},
        checked=_mean(gained.rewards["checker"]) if "checker" in gained.rewards else None,
        num_samples=len(gained.positions),
        num_learned=int(found.learned.sum()),
        num_groups=len(chosen),
        num_without_variance=found.num_without_variance,
        num_with_too_few=found.num_with_too_few,
        entropy=gained.entropy,
        kl=report.kl,
        clipped=report.clipped,
        grad_norm=report.grad_norm,
        gap=report.gap,
        seconds=clock.seconds,
        staleness=staleness_of(settings.grpo, index),
        policy_sha256=sha256,
    )
    _tell_tracker(context, round_, row, gained)

    def effect(session: Session) -> None:
        ids = gained.store(session)
        rollouts = _new_rollouts(ids, gained, found)
        add_update(session, round_.id, row, _new_groups(chosen, found), rollouts, at=context.clock())
        keep_state(session, context, lease, index, saved)
        if publish is not None:
            publish(session)
        else:
            context.live_policy = live

    return effect


def _drawn_here(
    context: RunContext,
    policy: Policy,
    round_: Round,
    chosen: list[PromptRow],
    index: int,
    clock: Clock,
    still_wanted: Callable[[], object],
) -> Experience:
    """Draw and score the samples of an update in this process."""
    with transaction(context.engine) as session:
        version = version_of(session, round_.drawing_version_id)
        base = base_version(session, context.run_id)
    with clock.part("draw"):
        drawn = draw_rows(context, policy, round_, rows_of_update(context.settings, chosen, index))
    still_wanted()
    with clock.part("score"):
        of_scorers = score_images(context, version, base, drawn.prompts, drawn.images, drawn.seeds, still_wanted)
    with clock.part("store"):
        samples = new_samples(drawn, context.images.write_all(drawn.images))

    def store(session: Session) -> list[int]:
        ids = add_drawn(session, round_, samples, at=context.clock())
        pairs = [(one, id_) for of_scorer in of_scorers for one, id_ in zip(of_scorer, ids, strict=True)]
        add_assessments(session, [replace(one, sample_id=id_) for one, id_ in pairs])
        return ids

    shape = len(chosen), context.settings.sampling.samples_per_prompt
    rewards = {
        of_scorer[0].assessor: np.array([_reward(one.score) for one in of_scorer]).reshape(shape)
        for of_scorer in of_scorers
    }
    positions = list(range(len(drawn.indexes)))
    return Experience(
        chosen, positions, drawn.ids_BL, drawn.log_probs_BL, rewards, store, lambda place: drawn.images[place]
    )


def _of_workers(context: RunContext, lease: Lease, round_: Round, chosen: list[PromptRow], clock: Clock) -> Experience:
    """Return the samples that generators drew and assessors scored for an update."""
    settings, index = context.settings, int(lease.payload["update"])
    with transaction(context.engine) as session:
        rows = pending_rollouts(session, round_.id, index)
        for part, kind in (("draw", "sample"), ("score", "assess")):
            clock.seconds[part] = round(seconds_of_units(session, round_.id, kind, lease.first_row, lease.stop_row), 3)
    if not rows:
        raise InconsistentRunError(what=f"update {index} of round {round_.index} has no samples")
    shape = len(chosen), settings.sampling.samples_per_prompt
    names = [*settings.grpo.weights, *(["checker"] if context.domain.exact else [])]
    rewards = {name: np.full(shape, np.nan) for name in names}
    for row in rows:
        for name, values in rewards.items():
            values[divmod(row.position, shape[1])] = _reward(row.scores.get(name))
    return Experience(
        chosen,
        [row.position for row in rows],
        np.stack([row.image_ids for row in rows]),
        np.stack([row.log_probs for row in rows]),
        rewards,
        lambda _: [row.sample_id for row in rows],
        lambda place: context.images.read(rows[place].image_sha256),
    )


def _reward(score: float | None) -> float:
    return float("nan") if score is None else score


def _tell_tracker(context: RunContext, round_: Round, row: NewUpdate, gained: Experience) -> None:
    """Tell the tracker of the update's numbers, and now and then show it a row of samples for each of a few prompts."""
    settings = context.settings
    shown = None
    if row.index % PICTURED_UPDATES == 1 or row.index == settings.grpo.updates:
        group = settings.sampling.samples_per_prompt
        groups: list[list[Image.Image]] = [[] for _ in range(PICTURED_PROMPTS)]
        for place, position in enumerate(gained.positions[: PICTURED_PROMPTS * group]):
            number, of_group = divmod(position, group)
            if number < PICTURED_PROMPTS and of_group < PICTURED_SAMPLES:
                groups[number].append(gained.image_at(place))
        shown = strip([images for images in groups if images])
    name = f"round-{round_.index}-updates"
    track_update(settings.train.report_to, context.trackers, name, row.index, numbers_of(row), shown)


def numbers_of(row: NewUpdate) -> dict[str, float]:
    """Return the numbers of an update by the name that a tracker shows."""
    numbers = {
        **{f"reward/{name}": mean for name, mean in row.rewards.items()},
        "drawn_right": row.checked,
        "share_without_variance": row.num_without_variance / row.num_groups,
        "entropy": row.entropy,
        "kl": row.kl,
        "clipped": row.clipped,
        "grad_norm": row.grad_norm,
        "gap": row.gap,
        **{f"seconds/{part}": seconds for part, seconds in row.seconds.items()},
    }
    return {name: number for name, number in numbers.items() if number is not None}


def _refuse_runaway(entropy: float, first: float | None, index: int, ratio: float) -> None:
    if first is not None and entropy > ratio * first:
        raise EntropyRunawayError(entropy=f"{entropy:.2f}", first=f"{first:.2f}", update=index, ratio=f"{ratio:g}")


def _mean(rewards: Rewards) -> float | None:
    known = rewards[np.isfinite(rewards)]
    return float(known.mean()) if known.size else None


def _rollouts(gained: Experience, found: Advantages) -> list[Rollout]:
    from illume_loop.train.grpo import Rollout

    group, advantages = found.values.shape[1], found.values.ravel()
    return [
        Rollout(gained.chosen[position // group].text, ids_L, log_probs_L, float(advantages[position]))
        for position, ids_L, log_probs_L in zip(gained.positions, gained.ids_BL, gained.log_probs_BL, strict=True)
        if np.isfinite(advantages[position])
    ]


def _new_groups(chosen: Sequence[PromptRow], found: Advantages) -> list[NewGroup]:
    groups = []
    for place, prompt in enumerate(chosen):
        spreads = {name: float(of_scorer[place]) for name, of_scorer in found.spreads.items()}
        known = spreads if np.isfinite(list(spreads.values())).all() else {}
        groups.append(NewGroup(prompt.id, int(found.num_scored[place]), known))
    return groups


def _new_rollouts(ids: Sequence[int], gained: Experience, found: Advantages) -> list[NewRollout]:
    advantages = found.values.ravel()[gained.positions]
    return [
        NewRollout(id_, log_probs_L, float(advantage) if np.isfinite(advantage) else None)
        for id_, log_probs_L, advantage in zip(ids, gained.log_probs_BL, advantages, strict=True)
    ]
