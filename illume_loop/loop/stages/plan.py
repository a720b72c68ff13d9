"""Plan a round: its prompts, the version that draws them, and its units.

Invariants:

- The prompts and the units follow from the settings, the run's seed, the round's index and, for replay, the prompts of
  earlier rounds without an accepted sample. So a resumed run plans what the interrupted one had planned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from sqlalchemy.orm import Session

from illume_db.curation import unsolved_prompts
from illume_db.leases import RELEASES
from illume_db.prompts import ensure_prompts, prompt_ids_of
from illume_db.rounds import add_round, open_rounds, waiting_retries
from illume_db.units import NewUnit, add_units
from illume_loop.errors import UsageError
from illume_loop.loop.context import RunContext
from illume_loop.loop.moves import note
from illume_loop.loop.promotion import active_of
from illume_loop.loop.prompts import new_prompts, num_prompts, prompt_of
from illume_loop.loop.unit_inputs import derived_seed, span_of_update
from illume_loop.protocols import Domain, Prompt
from illume_loop.settings import SamplingSettings, Settings


@dataclass(frozen=True, slots=True)
class RoundPlan:
    """The prompts of a round, in order, with the number of replayed prompts and of minimal pairs among them."""

    prompts: list[Prompt]
    num_replayed: int = 0
    num_pairs: int = 0
    """The number of minimal pairs; each has two prompts."""


def round_plan(domain: Domain, settings: Settings, round_index: int, unsolved: Sequence[Prompt] = ()) -> RoundPlan:
    """Return the plan of a round: the prompts of `round_prompts`, some of which are replaced.

    - Replay: prompts of `unsolved` replace at most a share `sampling.replay_share`. They are prompts of earlier rounds
      without an accepted sample, and the first ones are taken first.
    - Minimal pairs: at most a share `sampling.minimal_pairs` is paired. The partner of the first prompt of a pair
      replaces the second.

    A prompt is only replaced by one of its category, so the balance over categories stays that of the domain. Raises
    UsageError as `round_prompts` does.
    """
    fresh = round_prompts(domain, settings, round_index)
    sampling, seed = settings.sampling, derived_seed("partner", settings.run.seed, round_index)
    chosen = list(fresh)
    taken = {prompt.text for prompt in fresh}
    num_replayed = num_pairs = 0
    for category in sorted({prompt.category for prompt in fresh}):
        places = [place for place, prompt in enumerate(fresh) if prompt.category == category]
        again = [prompt for prompt in unsolved if prompt.category == category and prompt.text not in taken]
        again = again[: int(sampling.replay_share * len(places))]
        for place, prompt in zip(reversed(places), again, strict=False):
            chosen[place] = prompt
            taken.add(prompt.text)
        num_replayed += len(again)
        free = places[: len(places) - len(again)]
        most = int(sampling.minimal_pairs * len(places) / 2)
        for first, second in list(zip(free[::2], free[1::2], strict=False))[:most]:
            partner = None if chosen[first].is_edit else domain.partner(chosen[first], seed)
            if partner is not None and partner.text not in taken:
                chosen[second] = partner
                taken.add(partner.text)
                num_pairs += 1
    return RoundPlan(chosen, num_replayed, num_pairs)


def round_prompts(domain: Domain, settings: Settings, round_index: int) -> list[Prompt]:
    """Return the prompts of a round before any is replaced; edits come last.

    Raises UsageError if the domain has fewer train prompts, or edits, than one round needs.
    """
    count, seed = settings.sampling.prompts_per_round, settings.run.seed
    num_edits = settings.sampling.num_edits
    drawn = _of_round(lambda most: domain.prompts("train", most, seed), count - num_edits, round_index)
    return drawn + _of_round(lambda most: domain.edits("train", most, seed), num_edits, round_index)


def _of_round(ask: Callable[[int], list[Prompt]], count: int, round_index: int) -> list[Prompt]:
    """Return this round's `count` prompts.

    The categories give prompts in turn, and each goes on where it stopped in the round before. A category whose prompts
    were all drawn begins again, so that later rounds do not forget it. From then on every second prompt is one that was
    never drawn, as long as there are any. A round draws no prompt twice. `ask` returns that many prompts of the domain,
    or raises UsageError if it has fewer. Raises UsageError if the first round lacks prompts.
    """
    if not count:
        return []
    first_round = ask(count)
    if round_index == 1:
        return first_round
    queues: dict[str, list[Prompt]] = {}
    for prompt in _at_most(ask, (round_index + 1) * count):
        queues.setdefault(prompt.category, []).append(prompt)
    given, have_new = Counter[str](), set(queues)
    in_turn, of_new = cycle(queues), cycle(queues)
    for index in range(1, round_index + 1):
        chosen: list[Prompt] = []
        before = given.copy()
        while len(chosen) < count:
            wants_new = index > 1 and len(chosen) % 2 == 1 and 0 < len(have_new) < len(queues)
            category = next(of_new if wants_new else in_turn)
            queue = queues[category]
            if category in have_new if wants_new else given[category] - before[category] < len(queue):
                chosen.append(queue[given[category] % len(queue)])
                given[category] += 1
                if given[category] == len(queue):
                    have_new.discard(category)
    return chosen


def _at_most(ask: Callable[[int], list[Prompt]], most: int) -> list[Prompt]:
    """Return `most` prompts, or all if the domain has fewer."""
    try:
        return ask(most)
    except UsageError:
        return ask(num_prompts(ask, most))


def units_of_round(settings: Settings) -> list[NewUnit]:
    """Return the units that draw and judge a round; with rewards, those of its updates."""
    if settings.train.learns_from_rewards:
        return update_units(settings)
    return sampling_units(settings.sampling, settings.assess.batch_size)


def update_units(settings: Settings) -> list[NewUnit]:
    """Return the units of a round's updates. Each update waits for the one before.

    If the trainer draws and scores, a unit is a whole update. If workers do, the samples and assessments of an update
    are units of their own. Row r of the round is then sample r % n of update r // n + 1, where n is the number of
    samples of an update. The samples of an update wait for the update whose policy draws them.
    """
    grpo, sampling = settings.grpo, settings.sampling
    updates = range(1, grpo.updates + 1)
    if grpo.rollouts == "trainer":
        return [_update_unit(index, waits=index > 1) for index in updates]
    samples, assessments, learning = list[NewUnit](), list[NewUnit](), list[NewUnit]()
    for index in updates:
        payload, rows = {"update": index}, span_of_update(settings, index)
        waits = index > 1 + grpo.max_staleness
        samples += _units("sample", rows, sampling.batch_size, payload, waits=waits)
        assessments += _units("assess", rows, settings.assess.batch_size, payload)
        releases = span_of_update(settings, index + 1 + grpo.max_staleness)
        learning.append(_update_unit(index, waits=True, rows=rows, releases=releases))
    return samples + assessments + learning


def _update_unit(
    index: int, *, waits: bool, rows: tuple[int, int] | None = None, releases: tuple[int, int] | None = None
) -> NewUnit:
    payload = {"update": index} | ({} if releases is None else {RELEASES: releases})
    return NewUnit("train", f"train/{index:04d}", payload, rows, num_items=1, waits=waits)


def sampling_units(sampling: SamplingSettings, assess_batch_size: int) -> list[NewUnit]:
    """Return the units that draw and assess a round.

    Row r of a round is sample r % samples_per_prompt of the prompt at position r // samples_per_prompt.
    """
    num_rows = sampling.prompts_per_round * sampling.samples_per_prompt
    rows = 0, num_rows
    return _units("sample", rows, sampling.batch_size, {}) + _units("assess", rows, assess_batch_size, {})


def _units(
    kind: str, rows: tuple[int, int], batch_size: int, payload: dict[str, Any], *, waits: bool = False
) -> list[NewUnit]:
    start, stop = rows
    return [
        NewUnit(
            kind,
            f"{kind}/{first}",
            payload,
            (first, min(first + batch_size, stop)),
            min(batch_size, stop - first),
            waits,
        )
        for first in range(start, stop, batch_size)
    ]


def plan_round(context: RunContext, session: Session, index: int, before: Sequence[NewUnit] = ()) -> None:
    """Begin a round: fix its prompts, its units, and the version that draws, which is the active one.

    The units of `before` come before the round's own. If a person wants a round to be run again, the new round draws
    the prompts of that round.
    """
    settings = context.settings
    parent = active_of(session, context.run_id)
    staleness = len(open_rounds(session, context.run_id))
    again = next(iter(waiting_retries(session, context.run_id)), None)
    if again is not None:
        prompt_ids = prompt_ids_of(session, again.id)
        about = f"; it draws the prompts of round {again.index} again ({again.state})"
    else:
        prompt_ids, about = _new_prompt_ids(context, session, index)
    round_ = add_round(
        session,
        context.run_id,
        index,
        parent_version_id=parent.id,
        prompt_ids=prompt_ids,
        at=context.clock(),
        staleness=staleness,
        retry_of_id=None if again is None else again.id,
    )
    add_units(session, round_.id, [*before, *units_of_round(settings)])
    note(context, session, round_, "planned", f"round {index} planned, drawing with {parent.name}{about}")


def _new_prompt_ids(context: RunContext, session: Session, index: int) -> tuple[list[int], str]:
    """Return the ids of the run's next prompts, and the words about them for the event log."""
    settings = context.settings
    unsolved = unsolved_prompts(session, context.run_id) if settings.sampling.replay_share else []
    plan = round_plan(context.domain, settings, index, [prompt_of(prompt) for prompt in unsolved])
    prompts = new_prompts("train", plan.prompts, context.domain, context.images)
    about = ""
    if plan.num_replayed or plan.num_pairs:
        about = f"; {plan.num_replayed} prompts again, {plan.num_pairs} minimal pairs"
    return ensure_prompts(session, context.run_id, prompts), about
