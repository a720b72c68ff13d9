"""Evaluate a model version by one suite of the gate, and measure how far a candidate drifted as a judge."""

from __future__ import annotations

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
from illume_loop.evals.suites import alignment, draw, editing, matching, prompt_diversity, understanding
from illume_loop.hooks import OnProgress, ignore
from illume_loop.judge.agreement import drift_between
from illume_loop.judge.fitting import DrawnImage, read_set
from illume_loop.judge.referee import Referee
from illume_loop.loop.context import RunContext
from illume_loop.loop.gate_plans import DIVERSITY_SAMPLES, EDITING, UNDERSTANDING, MeasurePlan
from illume_loop.loop.prompts import new_prompts, prompt_of
from illume_loop.loop.unit_inputs import Effect, OnItems, derived_seed
from illume_loop.protocols import Domain, EditProbe, UnifiedModel


@dataclass(frozen=True, slots=True)
class Measurement:
    """The result of one suite.

    `value` in 0..1 is the result as a whole. `passed` has the outcome of each item, if the suite has items. `images`
    has the first images drawn, if the plan keeps some.
    """

    value: float
    passed: list[bool]
    images: list[Image.Image]


def measure(
    plan: MeasurePlan,
    take: Callable[[], UnifiedModel],
    domain: Domain,
    on_items: Callable[[int, int], None],
    referee: Referee | None = None,
    on_progress: OnProgress = ignore,
) -> Measurement:
    """Carry out a plan on the model that `take` loads.

    A domain without a checker needs a `referee`. The model and that of the referee are never used at the same time.
    `on_progress` is called after each image that a checker has decided about.
    """
    drawing = plan.prompts, plan.seeds, plan.sampling, plan.batch_size
    if plan.suite == "heldout" and referee is None:
        drawn = alignment(take(), domain, *drawing, on_items, on_progress)
        return Measurement(_share(drawn.passed), drawn.passed, drawn.images[: plan.num_kept])
    if plan.suite == "heldout" and referee is not None:
        images, _ = draw(take(), *drawing, lambda done, total: on_items(done // 2, total))
        verdicts = referee.decide(images, plan.prompts, lambda done, total: on_items((total + done) // 2, total))
        passed = [verdict.passed for verdict in verdicts]
        return Measurement(_share(passed), passed, images[: plan.num_kept])
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
        return Measurement(_share(right), right, [])
    if plan.suite == EDITING:
        probes = [
            EditProbe(domain.source(p), p.instruction, p.category, partial(domain.check, prompt=p))
            for p in plan.prompts
        ]
        edited = editing(
            take(), probes, plan.seeds, plan.sampling, plan.batch_size, on_items=on_items, on_progress=on_progress
        )
        return Measurement(_share(edited), edited, [])
    seeds_PS = [plan.seeds[start : start + DIVERSITY_SAMPLES] for start in range(0, len(plan.seeds), DIVERSITY_SAMPLES)]
    value = prompt_diversity(take(), [prompt.text for prompt in plan.prompts], seeds_PS, plan.sampling)
    return Measurement(value, [], [])


def _share(outcomes: list[bool]) -> float:
    return sum(outcomes) / len(outcomes)


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


def evaluate(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Measure a model version by one suite of the gate.

    The suite of held-out prompts is measured on the prompts that one look adds.
    """
    with transaction(context.engine) as session:
        round_index = round_of(session, lease.round_id).index
        version = version_of(session, lease.payload["version_id"])
        base = base_version(session, context.run_id)
    # A round that was planned by a release without looks has no look in its payloads.
    plan = context.plans.of(lease.payload["suite"], round_index, lease.payload.get("look", 0))
    referee = None if context.domain.exact else referee_of(context, base.sha256)
    measured = measure(
        plan, lambda: context.models.take(version.sha256), context.domain, on_items, referee, context.on_progress
    )
    names: list[str | None] = [*context.images.write_all(measured.images)]
    names += [None] * (len(measured.passed) - len(names))
    # The prompts of the items are stored as held out, so that none of them can be learned.
    prompts = new_prompts("heldout", plan.prompts if plan.of_heldout else (), context.domain, context.images)

    def effect(session: Session) -> None:
        prompt_ids: list[int | None] = [None] * len(measured.passed)
        if plan.of_heldout:
            prompt_ids = [*ensure_prompts(session, context.run_id, prompts)]
        items = [NewItem(*item) for item in zip(measured.passed, prompt_ids, names, strict=True)]
        add_evaluation(
            session,
            version.id,
            suite=plan.suite,
            plan_sha256=plan.sha256,
            value=measured.value,
            num_items=plan.count,
            items=items,
            at=context.clock(),
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
