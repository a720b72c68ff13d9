"""Evaluate a model version by one suite of the gate, and measure how far a candidate drifted as a judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from PIL import Image
from sqlalchemy.orm import Session

from illume_db.evaluations import NewItem, add_evaluation
from illume_db.judging import add_drift
from illume_db.leases import Lease
from illume_db.prompts import ensure_prompts, prompts_at
from illume_db.rounds import round_of
from illume_db.samples import samples_of
from illume_db.sessions import transaction
from illume_db.tables import ModelVersion
from illume_db.versions import base_version, version_of
from illume_loop.errors import InconsistentRunError
from illume_loop.evals.statistics import share
from illume_loop.evals.suites import alignment, draw, editing, matching, prompt_diversity, understanding
from illume_loop.hooks import OnProgress, ignore
from illume_loop.judge.agreement import drift_between
from illume_loop.judge.fitting import DrawnImage, read_set
from illume_loop.judge.judge import Judge
from illume_loop.judge.referee import Referee
from illume_loop.loop.context import RunContext
from illume_loop.loop.gate_plans import (
    BEST_OF,
    BEST_OF_SAMPLES,
    DECODE,
    DIVERSITY_SAMPLES,
    EDITING,
    HELDOUT,
    UNDERSTANDING,
    MeasurePlan,
)
from illume_loop.loop.prompts import new_prompts, prompt_of
from illume_loop.loop.unit_inputs import Effect, OnItems, derived_seed
from illume_loop.protocols import Domain, EditProbe, Prompt, UnifiedModel


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one suite.

    `value` in 0..1 is the result as a whole. `passed` has the outcome of each item, if the suite has items. `images`
    has the first images drawn, if the plan keeps some.
    """

    value: float
    passed: list[bool]
    images: list[Image.Image]


Scorer = Callable[[UnifiedModel, Sequence[Image.Image], Sequence[Prompt]], list[float | None]]
"""A function that returns a model's own score of each image; None stands for an image that it could not score."""


def measure(
    plan: MeasurePlan,
    take: Callable[[], UnifiedModel],
    domain: Domain,
    on_items: Callable[[int, int], None],
    referee: Referee | None = None,
    on_progress: OnProgress = ignore,
    score: Scorer | None = None,
) -> Measurement:
    """Carry out a plan on the model that `take` loads.

    A domain without a checker needs a `referee`. The model and that of the referee are never used at the same time.
    The suite `best-of` needs `score`. `on_progress` is called after each image that a checker has decided about.
    """
    drawing = plan.prompts, plan.seeds, plan.sampling, plan.batch_size
    if plan.suite in (HELDOUT, DECODE, BEST_OF):
        images, passed, scores = _drawn(plan, take, domain, on_items, referee, on_progress, score)
        value = share(passed) if plan.suite != BEST_OF else share(best_of(passed, scores))
        return Measurement(value, passed, images[: plan.num_kept])
    if plan.suite == UNDERSTANDING:
        if referee is None:
            right = understanding(take(), domain, plan.count, plan.seeds[0], on_items=on_items)
        else:
            images, _ = draw(referee.take(), *drawing, lambda done, total: on_items(done // 2, total))
            texts, others = ([prompt.text for prompt in prompts] for prompts in (plan.prompts, plan.others))
            half = len(images)
            right = matching(
                take(), images, texts, others, on_items=lambda done, total: on_items((half + done) // 2, total)
            )
        return Measurement(share(right), right, [])
    if plan.suite == EDITING:
        probes = [
            EditProbe(domain.source(p), p.instruction, p.category, partial(domain.check, prompt=p))
            for p in plan.prompts
        ]
        edited = editing(
            take(), probes, plan.seeds, plan.sampling, plan.batch_size, on_items=on_items, on_progress=on_progress
        )
        return Measurement(share(edited), edited, [])
    seeds_PS = [plan.seeds[start : start + DIVERSITY_SAMPLES] for start in range(0, len(plan.seeds), DIVERSITY_SAMPLES)]
    value = prompt_diversity(take(), [prompt.text for prompt in plan.prompts], seeds_PS, plan.sampling)
    return Measurement(value, [], [])


def _drawn(
    plan: MeasurePlan,
    take: Callable[[], UnifiedModel],
    domain: Domain,
    on_items: Callable[[int, int], None],
    referee: Referee | None,
    on_progress: OnProgress,
    score: Scorer | None,
) -> tuple[list[Image.Image], list[bool], list[float | None]]:
    """Draw the prompts; return the images, the verdicts, and the model's own scores if it has to score."""
    drawing = plan.prompts, plan.seeds, plan.sampling, plan.batch_size
    num_parts = 1 + (referee is not None) + (score is not None)
    scores: list[float | None] = []

    def on_part(part: int) -> Callable[[int, int], None]:
        return lambda done, total: on_items((part * total + done) // num_parts, total)

    if referee is None:
        drawn = alignment(take(), domain, *drawing, on_part(0), on_progress)
        images, passed = drawn.images, drawn.passed
    else:
        images, _ = draw(take(), *drawing, on_part(0))
    if score is not None:
        for start in range(0, len(images), plan.batch_size):
            chunk = slice(start, start + plan.batch_size)
            scores += score(take(), images[chunk], plan.prompts[chunk])
            on_part(1)(len(scores), len(images))
    if referee is not None:
        passed = [verdict.passed for verdict in referee.decide(images, plan.prompts, on_part(num_parts - 1))]
    return images, passed, scores


def best_of(passed: Sequence[bool], scores: Sequence[float | None]) -> list[bool]:
    """Return, for each prompt, if the draw with the best score is right; the draws of a prompt follow each other.

    An image without a score is never better than one with a score. Among equals, the first is taken.
    """
    groups = [range(first, first + BEST_OF_SAMPLES) for first in range(0, len(passed), BEST_OF_SAMPLES)]
    values = [-math.inf if score is None else score for score in scores]
    return [passed[max(group, key=lambda place: (values[place], -place))] for group in groups]


def referee_of(context: RunContext, base_sha256: str) -> Referee:
    """Return the run's base as the independent judge of a domain that has no checker."""
    settings = context.settings
    return Referee(
        context.domain,
        lambda: context.models.take(base_sha256),
        partial(derived_seed, "referee", settings.run.seed),
        settings.assess.questions,
        settings.assess.retries,
        settings.assess.batch_size,
        context.calibration,
    )


def own_scorer(context: RunContext) -> Scorer:
    """Return the function by which a model scores its own draws, as it judges the samples of a round."""
    settings = context.settings
    seed_of = partial(derived_seed, "judge", settings.run.seed)
    assess = settings.assess.model_copy(update={"critiques": False})
    judge = Judge.of(assess, context.domain, seed_of, context.calibration)

    def score(model: UnifiedModel, images: Sequence[Image.Image], prompts: Sequence[Prompt]) -> list[float | None]:
        return [opinion.score for opinion in judge.judge(model, images, prompts, range(len(images)))]

    return score


def evaluate(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Measure a model version by one suite of the gate, at one decode.

    The suite of held-out prompts is measured on the prompts that one look adds.
    """
    with transaction(context.engine) as session:
        round_index = round_of(session, lease.round_id).index
        version = version_of(session, lease.payload["version_id"])
        base = base_version(session, context.run_id)
    plan = context.plans.of(lease.payload, round_index)
    measured = measure(
        plan,
        lambda: context.models.take(version.sha256),
        context.domain,
        on_items,
        None if context.domain.exact else referee_of(context, base.sha256),
        context.on_progress,
        own_scorer(context) if plan.suite == BEST_OF else None,
    )
    # A trial is needed as a whole only; one version has a thousand of its draws and more.
    passed = [] if plan.suite == DECODE else measured.passed
    names: list[str | None] = [*context.images.write_all(measured.images)]
    names += [None] * (len(passed) - len(names))
    # The prompts of the items are stored as held out, so that none of them can be learned.
    prompts = new_prompts("heldout", plan.prompts if plan.of_heldout else (), context.domain, context.images)

    def effect(session: Session) -> None:
        prompt_ids: list[int | None] = [None] * len(passed)
        if plan.of_heldout:
            prompt_ids = [*ensure_prompts(session, context.run_id, prompts)]
        items = [NewItem(*item) for item in zip(passed, prompt_ids, names, strict=True)]
        add_evaluation(
            session,
            version.id,
            suite=plan.suite,
            plan_sha256=plan.sha256,
            value=measured.value,
            num_items=plan.count,
            items=items,
            at=context.clock(),
            decode=plan.decode,
        )

    return effect


def measure_drift(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Measure how far the candidate's judgement of the round's samples drifted from that of the run's base.

    Both judge the same samples, which are spread evenly over the round.
    """
    with transaction(context.engine) as session:
        candidate = version_of(session, lease.payload["version_id"])
        base = base_version(session, context.run_id)
        prompts = prompts_at(session, lease.round_id, 0, context.settings.sampling.prompts_per_round)
        drawn = samples_of(session, lease.round_id, prompts)
    count = min(lease.num_items, len(drawn))
    rows = [drawn[place * len(drawn) // count] for place in range(count)]
    shown = [DrawnImage(prompt_of(row.prompt).claim, context.images.read(row.image_sha256)) for row in rows]
    frozen = _log_odds(context, base, shown, lambda done, _: on_items(done // 2, count))
    judged = _log_odds(context, candidate, shown, lambda done, _: on_items((count + done) // 2, count))
    found = drift_between(judged, frozen)
    return lambda session: add_drift(
        session,
        lease.round_id,
        num_samples=found.n,
        shift=found.shift,
        auc=found.auc,
        num_failed=found.num_failed,
        at=context.clock(),
    )


def _log_odds(context: RunContext, version: ModelVersion, shown: Sequence[DrawnImage], on_read: OnItems) -> list[float]:
    """Return the calibrated log-odds that a version gives each image to be right."""
    calibration = context.calibration
    if calibration is None:
        raise InconsistentRunError(what="the run measures drift and has no calibration")
    model = context.models.take(version.sha256)
    reading = read_set(model, context.domain, shown, on_read, context.settings.assess.batch_size)
    return [calibration.overall.logistic.log_odds(read.readings) for read in reading]
