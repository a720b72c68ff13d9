"""The samples of an update: its prompts, the rows that are drawn, and their scores.

Invariants:

- The prompts of an update follow from the seed and from rewards that were stored before its policy was, so it does not
  matter who draws, and when.
- The policy that draws is behind by exactly `staleness_of` updates, also if it waits for a slow worker.
- The scorer `self` is the version that the round began with. It is stored and does not move within a round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from PIL import Image
from sqlalchemy.orm import Session

from illume_db.curation import ExampleRow
from illume_db.prompts import PromptRow, prompts_at
from illume_db.samples import NewAssessment, NewSample, add_samples
from illume_db.tables import ModelVersion, Round
from illume_db.updates import groups_before, sample_ids
from illume_loop.judge.judge import Judge, Opinion
from illume_loop.loop.assessing import assessment_of, checked
from illume_loop.loop.canonical import check_splits
from illume_loop.loop.context import RunContext
from illume_loop.loop.prompts import prompt_of
from illume_loop.loop.unit_inputs import derived_seed, sample_seed
from illume_loop.protocols import ImageIds, LogProbs
from illume_loop.settings import GrpoSettings, Settings
from illume_loop.telemetry.tally import TALLY
from illume_loop.train.advantages import DrawnGroup, choose_prompts

if TYPE_CHECKING:
    from illume_loop.train.grpo import Policy

NOT_STORED = 0
"""The id in an assessment whose sample has no id yet."""


@dataclass(slots=True)
class Drawn:
    """Samples of an update, group by group, B of them."""

    prompts: list[PromptRow]
    indexes: list[int]
    seeds: list[int]
    ids_BL: ImageIds
    log_probs_BL: LogProbs
    images: list[Image.Image]


def staleness_of(settings: GrpoSettings, index: int) -> int:
    """Return the number of updates by which the policy that draws for update `index` of a round is behind."""
    return min(settings.max_staleness, index - 1)


def prompts_of_update(context: RunContext, session: Session, round_: Round, index: int) -> list[PromptRow]:
    """Return the prompts of an update, each of which is drawn `sampling.samples_per_prompt` times."""
    settings = context.settings
    pool = prompts_at(session, round_.id, 0, settings.sampling.prompts_per_round)
    groups = groups_before(session, context.run_id, round_.index, index - staleness_of(settings.grpo, index))
    earlier = [DrawnGroup(group.text, group.category, group.spreads) for group in groups]
    chosen = chosen_prompts(settings, pool, earlier, round_.index, index)
    check_splits([ExampleRow("draw", row.text, None, None) for row in chosen], context.domain.split_of, round_.index)
    return chosen


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


def rows_of_update(settings: Settings, chosen: Sequence[PromptRow], index: int) -> list[tuple[PromptRow, int]]:
    """Return (prompt, sample index) of each sample of an update.

    Each update has sample indexes of its own, because a prompt may be drawn by several updates of a round.
    """
    group = settings.sampling.samples_per_prompt
    return [(prompt, (index - 1) * group + i) for prompt in chosen for i in range(group)]


def draw_rows(context: RunContext, policy: Policy, round_: Round, rows: Sequence[tuple[PromptRow, int]]) -> Drawn:
    """Draw rows of an update with a policy."""
    prompts, indexes = [prompt for prompt, _ in rows], [index for _, index in rows]
    seeds = [sample_seed(context.settings.run.seed, round_.index, prompt.text, index) for prompt, index in rows]
    ids_BL, log_probs_BL = policy.draw([prompt.text for prompt in prompts], seeds)
    TALLY.drew(len(ids_BL), ids_BL.size)
    return Drawn(prompts, indexes, seeds, ids_BL, log_probs_BL, policy.decode(ids_BL))


def new_samples(drawn: Drawn, names: Sequence[str]) -> list[NewSample]:
    """Return the samples to store; `names` are those of their images in the store."""
    prompt_ids = [prompt.id for prompt in drawn.prompts]
    rows = zip(prompt_ids, drawn.indexes, drawn.seeds, drawn.ids_BL, names, strict=True)
    return [NewSample(*row) for row in rows]


def add_drawn(
    session: Session, round_: Round, samples: Sequence[NewSample], *, at: datetime, staleness: int = 0
) -> list[int]:
    """Add samples of an update, and return their ids in order."""
    add_samples(session, round_.id, round_.drawing_version_id, samples, at=at, staleness=staleness)
    indexes = [sample.sample_index for sample in samples]
    ids = sample_ids(session, round_.id, min(indexes), max(indexes) + 1)
    return [ids[sample.prompt_id, sample.sample_index] for sample in samples]


def score_images(
    context: RunContext,
    version: ModelVersion,
    base: ModelVersion,
    rows: Sequence[PromptRow],
    images: Sequence[Image.Image],
    seeds: Sequence[int],
    after_batch: Callable[[], object],
) -> list[list[NewAssessment]]:
    """Return the assessments of each scorer, in the order of the images.

    The checker of an exact domain is always asked, as a measurement; it counts as a scorer only if it is named.
    """
    settings = context.settings
    prompts = [prompt_of(prompt) for prompt in rows]
    judge = Judge.of(
        settings.assess, context.domain, partial(derived_seed, "judge", settings.run.seed), context.calibration
    )
    of_version: dict[int, list[Opinion]] = {}
    found: list[list[NewAssessment]] = []
    for name in settings.grpo.weights:
        if name == "checker":
            continue
        by = base if name == "frozen" else version
        if by.id not in of_version:
            model, opinions = context.models.take(by.sha256), []
            for first in range(0, len(prompts), settings.assess.batch_size):
                some = slice(first, first + settings.assess.batch_size)
                opinions += judge.judge(model, images[some], prompts[some], seeds[some])
                after_batch()
            of_version[by.id] = opinions
        found.append([assessment_of(NOT_STORED, name, by.id, opinion) for opinion in of_version[by.id]])
    if context.domain.exact or "checker" in settings.grpo.weights:
        pairs = zip(prompts, images, strict=True)
        found.append([checked(context.domain, NOT_STORED, prompt, image) for prompt, image in pairs])
    return found
