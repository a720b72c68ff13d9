"""Do one update of a round of reinforcement learning: choose prompts, draw groups, score them, learn, and store.

Invariants:

- An update with its samples, rewards and the policy's state is stored in one transaction, so no sample counts twice.
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

from illume_db.curation import ExampleRow
from illume_db.leases import Lease
from illume_db.prompts import PromptRow, prompts_at
from illume_db.rounds import round_of
from illume_db.samples import NewAssessment, NewSample, add_assessments, add_samples
from illume_db.sessions import transaction
from illume_db.tables import ModelVersion, Round
from illume_db.updates import (
    NewGroup,
    NewRollout,
    NewUpdate,
    add_update,
    first_entropy,
    groups_before,
    num_updates,
    sample_ids,
)
from illume_db.versions import base_version, version_of
from illume_loop.charts.strip import strip
from illume_loop.errors import EntropyRunawayError, InconsistentRunError
from illume_loop.judge.judge import Judge, Opinion
from illume_loop.loop.assessing import assessment_of, checked
from illume_loop.loop.candidates import publish_candidate
from illume_loop.loop.canonical import check_splits
from illume_loop.loop.context import LivePolicy, RunContext
from illume_loop.loop.policies import Policies, keep_state, save_policy
from illume_loop.loop.prompts import prompt_of
from illume_loop.loop.unit_inputs import Effect, OnItems, derived_seed, sample_seed
from illume_loop.protocols import ImageIds, LogProbs
from illume_loop.settings import Settings
from illume_loop.telemetry.tally import TALLY
from illume_loop.train.advantages import (
    Advantages,
    DrawnGroup,
    Rewards,
    choose_prompts,
    group_advantages,
    shuffled_in_groups,
)
from illume_loop.train.trackers import track_update

if TYPE_CHECKING:
    from illume_loop.train.grpo import LearnReport, Policy, Rollout

PICTURED_UPDATES, PICTURED_PROMPTS, PICTURED_SAMPLES = 5, 4, 8
"""A tracker gets a picture of every fifth update and of the last one, with up to eight samples of four prompts."""

NOT_STORED = 0
"""The id in an assessment whose sample has no id yet."""


@dataclass(slots=True)
class Drawn:
    """The samples of an update, group by group: B = prompts x samples of a prompt."""

    prompts: list[PromptRow]
    indexes: list[int]
    seeds: list[int]
    ids_BL: ImageIds
    log_probs_BL: LogProbs
    images: list[Image.Image]

    @property
    def entropy(self) -> float:
        """The estimated entropy of the policy that drew, in nats per image token."""
        return -float(self.log_probs_BL.mean(dtype=np.float64))


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


def chosen_prompts(
    settings: Settings, pool: Sequence[PromptRow], earlier: Sequence[DrawnGroup], round_index: int, index: int
) -> list[PromptRow]:
    """Return the prompts of an update from those of its round."""
    grpo = settings.grpo
    places = choose_prompts(
        [(prompt.text, prompt.category) for prompt in pool],
        earlier,
        grpo.weights,
        grpo.prompts_per_update,
        grpo.prompt_floor,
        derived_seed("update", settings.run.seed, round_index, index),
    )
    return [pool[place] for place in places]


def advantages_of(settings: Settings, rewards: Mapping[str, Rewards], seed: int) -> Advantages:
    """Return the advantages of an update's samples by the settings; `seed` is that of the shuffled control."""
    grpo = settings.grpo
    given = shuffled_in_groups(rewards, seed) if grpo.shuffled else rewards
    return group_advantages(given, grpo.weights, normalise=grpo.advantage == "normalised")


def update(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Do one update; the last one of a round also publishes the policy as the round's candidate.

    Raises EntropyRunawayError, TrainingDivergedError, and InconsistentRunError if the updates before are not stored.
    """
    settings, index, clock = context.settings, int(lease.payload["update"]), Clock()
    with transaction(context.engine) as session:
        round_ = round_of(session, lease.round_id)
        num_done = num_updates(session, round_.id)
        version = version_of(session, round_.drawing_version_id)
        parent = version_of(session, round_.parent_version_id)
        base = base_version(session, context.run_id)
        pool = prompts_at(session, round_.id, 0, settings.sampling.prompts_per_round)
        groups = groups_before(session, context.run_id, round_.index, index)
        first = first_entropy(session, context.run_id)
    if num_done != index - 1:
        raise InconsistentRunError(what=f"update {index} of round {round_.index} is due after {num_done} updates")
    earlier = [DrawnGroup(group.text, group.category, group.spreads) for group in groups]
    chosen = chosen_prompts(settings, pool, earlier, round_.index, index)
    check_splits([ExampleRow("draw", row.text, None, None) for row in chosen], context.domain.split_of, round_.index)
    still_wanted = partial(on_items, 0, 1)
    policy = Policies(context).before(round_, index)
    context.live_policy = None  # from here on its weights may be between two states
    still_wanted()
    with clock.part("draw"):
        drawn = _draw(context, policy, round_, chosen, index)
    _refuse_runaway(drawn.entropy, first, index, settings.grpo.max_entropy_ratio)
    still_wanted()
    with clock.part("score"):
        rewards, assessments = _score(context, version, base, drawn, still_wanted)
    shape = (len(chosen), settings.sampling.samples_per_prompt)
    found = advantages_of(
        settings,
        {name: values.reshape(shape) for name, values in rewards.items() if name in settings.grpo.weights},
        derived_seed("shuffle", settings.run.seed, round_.index, index),
    )
    with clock.part("learn"):
        report = policy.learn(_rollouts(drawn, found))
    still_wanted()
    with clock.part("store"):
        names = context.images.write_all(drawn.images)
        saved = save_policy(context, policy, lease)
        live = LivePolicy(str(saved.folder), policy)
        publish: Effect | None = None
        if index == settings.grpo.updates:
            origin = f"{index} updates of {parent.name}"
            publish = publish_candidate(context, round_, origin, policy.publish)  # the policy is of no use afterwards
    row = _row(settings, index, drawn, rewards, found, report, clock)
    _tell_tracker(context, round_, row, drawn)
    samples = [
        NewSample(*of_sample)
        for of_sample in zip(
            [prompt.id for prompt in drawn.prompts], drawn.indexes, drawn.seeds, drawn.ids_BL, names, strict=True
        )
    ]

    def effect(session: Session) -> None:
        at = context.clock()
        add_samples(session, round_.id, version.id, samples, at=at)
        ids = sample_ids(session, round_.id, min(drawn.indexes), max(drawn.indexes) + 1)
        in_order = [ids[sample.prompt_id, sample.sample_index] for sample in samples]
        add_assessments(
            session,
            [
                replace(one, sample_id=in_order[place])
                for of_scorer in assessments
                for place, one in enumerate(of_scorer)
            ],
        )
        add_update(session, round_.id, row, _new_groups(chosen, found), _new_rollouts(in_order, drawn, found), at=at)
        keep_state(session, context, lease, index, saved)
        if publish is not None:
            publish(session)
        else:
            context.live_policy = live

    return effect


def _row(
    settings: Settings,
    index: int,
    drawn: Drawn,
    rewards: Mapping[str, Rewards],
    found: Advantages,
    report: LearnReport,
    clock: Clock,
) -> NewUpdate:
    """Return the numbers of an update as they are stored."""
    return NewUpdate(
        index=index,
        rewards={name: _mean(rewards[name]) for name in settings.grpo.weights},
        checked=_mean(rewards["checker"]) if "checker" in rewards else None,
        num_samples=len(drawn.ids_BL),
        num_learned=int(found.learned.sum()),
        num_groups=len(found.values),
        num_without_variance=found.num_without_variance,
        num_with_too_few=found.num_with_too_few,
        entropy=drawn.entropy,
        kl=report.kl,
        clipped=report.clipped,
        grad_norm=report.grad_norm,
        gap=report.gap,
        seconds=clock.seconds,
    )


def _tell_tracker(context: RunContext, round_: Round, row: NewUpdate, drawn: Drawn) -> None:
    """Tell the tracker of the update's numbers, and now and then show it a row of samples for each of a few prompts."""
    settings = context.settings
    shown = None
    if row.index % PICTURED_UPDATES == 1 or row.index == settings.grpo.updates:
        group = settings.sampling.samples_per_prompt
        starts = range(0, min(PICTURED_PROMPTS * group, len(drawn.images)), group)
        shown = strip([drawn.images[start : start + min(group, PICTURED_SAMPLES)] for start in starts])
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


def _draw(context: RunContext, policy: Policy, round_: Round, chosen: Sequence[PromptRow], index: int) -> Drawn:
    group = context.settings.sampling.samples_per_prompt
    prompts = [prompt for prompt in chosen for _ in range(group)]
    # Each update has sample indexes of its own, because a prompt may be drawn by several updates of a round.
    indexes = [(index - 1) * group + i for _ in chosen for i in range(group)]
    seeds = [
        sample_seed(context.settings.run.seed, round_.index, prompt.text, i)
        for prompt, i in zip(prompts, indexes, strict=True)
    ]
    ids_BL, log_probs_BL = policy.draw([prompt.text for prompt in prompts], seeds)
    TALLY.drew(len(ids_BL), ids_BL.size)
    return Drawn(prompts, indexes, seeds, ids_BL, log_probs_BL, policy.decode(ids_BL))


def _refuse_runaway(entropy: float, first: float | None, index: int, ratio: float) -> None:
    if first is not None and entropy > ratio * first:
        raise EntropyRunawayError(entropy=f"{entropy:.2f}", first=f"{first:.2f}", update=index, ratio=f"{ratio:g}")


def _score(
    context: RunContext, version: ModelVersion, base: ModelVersion, drawn: Drawn, after_batch: Callable[[], object]
) -> tuple[dict[str, Rewards], list[list[NewAssessment]]]:
    """Return the rewards (B,) by scorer, NaN where one failed, and the assessments of each scorer in the same order.

    The checker of an exact domain is always asked, as a measurement; it counts as a scorer only if it is named.
    """
    settings = context.settings
    prompts = [prompt_of(prompt) for prompt in drawn.prompts]
    judge = Judge.of(
        settings.assess, context.domain, partial(derived_seed, "judge", settings.run.seed), context.calibration
    )
    of_version: dict[int, list[Opinion]] = {}
    found: dict[str, list[NewAssessment]] = {}
    for name in settings.grpo.weights:
        if name == "checker":
            continue
        by = base if name == "frozen" else version
        if by.id not in of_version:
            model, opinions = context.models.take(by.sha256), []
            for first in range(0, len(prompts), settings.assess.batch_size):
                some = slice(first, first + settings.assess.batch_size)
                opinions += judge.judge(model, drawn.images[some], prompts[some], drawn.seeds[some])
                after_batch()
            of_version[by.id] = opinions
        found[name] = [assessment_of(NOT_STORED, name, by.id, opinion) for opinion in of_version[by.id]]
    if context.domain.exact or "checker" in settings.grpo.weights:
        pairs = zip(prompts, drawn.images, strict=True)
        found["checker"] = [checked(context.domain, NOT_STORED, prompt, image) for prompt, image in pairs]
    rewards = {name: np.array([_reward(one) for one in of_scorer]) for name, of_scorer in found.items()}
    return rewards, list(found.values())


def _reward(assessment: NewAssessment) -> float:
    return float("nan") if assessment.score is None else assessment.score


def _mean(rewards: Rewards) -> float | None:
    known = rewards[np.isfinite(rewards)]
    return float(known.mean()) if known.size else None


def _rollouts(drawn: Drawn, found: Advantages) -> list[Rollout]:
    from illume_loop.train.grpo import Rollout

    rows = zip(drawn.prompts, drawn.ids_BL, drawn.log_probs_BL, found.values.ravel(), strict=True)
    return [
        Rollout(prompt.text, ids_L, log_probs_L, float(advantage))
        for prompt, ids_L, log_probs_L, advantage in rows
        if np.isfinite(advantage)
    ]


def _new_groups(chosen: Sequence[PromptRow], found: Advantages) -> list[NewGroup]:
    groups = []
    for place, prompt in enumerate(chosen):
        spreads = {name: float(of_scorer[place]) for name, of_scorer in found.spreads.items()}
        known = spreads if np.isfinite(list(spreads.values())).all() else {}
        groups.append(NewGroup(prompt.id, int(found.num_scored[place]), known))
    return groups


def _new_rollouts(ids: Sequence[int], drawn: Drawn, found: Advantages) -> list[NewRollout]:
    rows = zip(ids, drawn.log_probs_BL, found.values.ravel(), strict=True)
    return [
        NewRollout(id_, log_probs_L, float(advantage) if np.isfinite(advantage) else None)
        for id_, log_probs_L, advantage in rows
    ]
