"""The unit functions: each does the work of one unit and returns its effect on the database.

Guarantee: a unit reads the database, computes, and writes artifacts (which are content-addressed, so twice is once);
rows are written only by the effect it returns, in one transaction with the unit's completion. A unit that is killed
leaves nothing behind that its next attempt could stumble over.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy.orm import Session

from illume_db.evaluations import NewItem, add_evaluation
from illume_db.judging import add_drift, next_prompts
from illume_db.leases import Lease
from illume_db.manifests import examples_of, manifest_of
from illume_db.prompts import PromptRow, ensure_prompts, prompts_at
from illume_db.rounds import round_of, set_candidate
from illume_db.samples import DrawnRow, NewAssessment, NewSample, add_assessments, add_samples, samples_of
from illume_db.sessions import transaction
from illume_db.tables import ModelVersion
from illume_db.teacher import forget_teacher_answers
from illume_db.versions import add_version, base_version, version_of
from illume_loop.assess.drift import drift_between
from illume_loop.assess.labelling import Shown, read_set
from illume_loop.engine.drawing import draw_images
from illume_loop.errors import CorruptArtifactError, InconsistentRunError
from illume_loop.loop.assessing import model_assessments, referee_of, teacher_assessments
from illume_loop.loop.calibrating import fit_calibration_of_run
from illume_loop.loop.manifest import check_splits, manifest_sha256, training_rows
from illume_loop.loop.measures import measure
from illume_loop.loop.plan import derived_seed, sample_seed
from illume_loop.loop.preflight import PREFLIGHT, preflight_of_run
from illume_loop.loop.prompts import new_prompts, prompt_of
from illume_loop.loop.training import kept_training
from illume_loop.loop.workbench import Workbench
from illume_loop.models.protocol import ImageIds, Sampling, UnifiedModel
from illume_loop.telemetry.tally import TALLY
from illume_loop.train.trackers import tracked

Effect = Callable[[Session], None]
OnItems = Callable[[int, int], None]


def sample(bench: Workbench, lease: Lease, on_items: OnItems) -> Effect:
    """Draw the rows of a unit with the version that was fixed when the round was planned, and store their images."""
    settings = bench.settings.sampling
    with transaction(bench.engine) as session:
        round_ = round_of(session, lease.round_id)
        version = version_of(session, round_.drawing_version_id)
        rows = _rows(session, lease, settings.samples_per_prompt)
    model = bench.models.take(version.sha256)
    seeds = [sample_seed(bench.settings.run.seed, round_.index, prompt.text, index) for prompt, index in rows]
    sampling = Sampling(settings.guidance_scale, settings.temperature, settings.top_k, settings.top_p)
    ids_BL, images, names = _drawn(bench, model, [prompt for prompt, _ in rows], seeds, sampling, on_items)
    TALLY.drew(*ids_BL.shape)
    bench.fresh_images.update(zip(names, images, strict=True))
    drawn = [
        NewSample(prompt.id, index, seed, ids_L, name)
        for (prompt, index), seed, ids_L, name in zip(rows, seeds, ids_BL, names, strict=True)
    ]
    return lambda session: add_samples(
        session, lease.round_id, version.id, drawn, at=bench.clock(), staleness=round_.staleness
    )


def assess(bench: Workbench, lease: Lease, on_items: OnItems) -> Effect:
    """Judge the rows of a unit: by the checker where there is one, and by whichever models or teacher are set.

    Rows that were given up are not there, and not judged.
    """
    with transaction(bench.engine) as session:
        round_ = round_of(session, lease.round_id)
        version = version_of(session, round_.drawing_version_id)
        base = base_version(session, bench.run_id)
        drawn = _drawn_rows(session, lease, bench.settings.sampling.samples_per_prompt)
        foreign = next_prompts(session, lease.round_id, [row.prompt.position for row in drawn]) if drawn else {}
    images = [bench.take_image(row.image_sha256) for row in drawn]
    assessments: list[NewAssessment] = []
    for row, image in zip(drawn, images, strict=True) if bench.domain.exact else ():
        assessments.append(_check(bench, row, image))
        bench.on_progress()
    if drawn:
        assessments += model_assessments(bench, round_.index, version, base, drawn, images, foreign)
        if bench.settings.assess.assessor == "teacher":
            assessments += teacher_assessments(bench, drawn, images, lambda done: on_items(done, len(drawn)))

    def effect(session: Session) -> None:
        add_assessments(session, assessments)
        if bench.settings.assess.assessor == "teacher":
            forget_teacher_answers(session, bench.run_id, {row.image_sha256 for row in drawn})

    return effect


def train(bench: Workbench, lease: Lease, on_items: OnItems) -> Effect:
    """Train a candidate on the round's manifest and publish its checkpoint; its hash and splits are verified first."""
    settings = bench.settings
    with transaction(bench.engine) as session:
        round_ = round_of(session, lease.round_id)
        parent = version_of(session, round_.parent_version_id)
        base = base_version(session, bench.run_id)
        manifest = manifest_of(session, round_.id)
        examples = examples_of(session, manifest.id)
    found = manifest_sha256(examples)
    if found != manifest.sha256:
        raise CorruptArtifactError(path=f"manifest of round {round_.index}", expected=manifest.sha256, found=found)
    check_splits(examples, bench.domain.split_of, round_.index)
    start = parent if settings.train.from_ == "parent" else base
    pairs = bench.domain.real_pairs(settings.curate.real_rows, real_seed(settings.run.seed, round_.index))
    rows = training_rows(
        examples, pairs, lambda images: bench.models.take(start.sha256).encode(images), bench.images.read
    )
    out = bench.scratch / f"train-{uuid4().hex}"
    try:
        seed = derived_seed("train", settings.run.seed, round_.index) % 2**31
        with kept_training(bench, lease), tracked(settings.train.report_to, bench.trackers, f"round-{round_.index}"):
            bench.toolbox.train(bench.checkpoints.local_path(start.sha256), rows, out, settings.train, seed, on_items)
            checkpoint = bench.checkpoints.publish(out)
    finally:
        shutil.rmtree(out, ignore_errors=True)

    def effect(session: Session) -> None:
        version = add_version(
            session,
            bench.run_id,
            parent_id=parent.id,
            state="candidate",
            sha256=checkpoint.sha256,
            num_bytes=checkpoint.num_bytes,
            origin=f"round {round_.index}, trained from {start.name}",
            at=bench.clock(),
        )
        set_candidate(session, round_.id, version.id)

    return effect


def evaluate(bench: Workbench, lease: Lease, on_items: OnItems) -> Effect:
    """Measure one model version by one suite; of the held-out prompts, those that one look adds.

    How the base judges is measured too, as the run's calibration, and how far a candidate drifted from that. Before
    anything is drawn, one prompt is tried through every stage.
    """
    if lease.payload["suite"] == "drift":
        return _drift(bench, lease, on_items)
    if lease.payload["suite"] == PREFLIGHT:
        return preflight_of_run(bench)
    if lease.payload["suite"] == "calibration":
        return fit_calibration_of_run(bench, on_items)
    with transaction(bench.engine) as session:
        round_index = round_of(session, lease.round_id).index
        version = version_of(session, lease.payload["version_id"])
        base = base_version(session, bench.run_id)
    # A round that was planned before there were looks has none in its payloads.
    plan = bench.plans.of(lease.payload["suite"], round_index, lease.payload.get("look", 0))
    referee = None if bench.domain.exact else referee_of(bench, base.sha256)
    measured = measure(
        plan, lambda: bench.models.take(version.sha256), bench.domain, on_items, referee, bench.on_progress
    )
    names: list[str | None] = [*bench.images.write_all(measured.images)]
    names += [None] * (len(measured.passed) - len(names))
    # Whose items have prompts has them held out by name, so that none of them can be learned.
    prompts = new_prompts("heldout", plan.prompts if plan.of_heldout else (), bench.domain, bench.images)

    def effect(session: Session) -> None:
        prompt_ids: list[int | None] = [None] * len(measured.passed)
        if plan.of_heldout:
            prompt_ids = [*ensure_prompts(session, bench.run_id, prompts)]
        items = [NewItem(*item) for item in zip(measured.passed, prompt_ids, names, strict=True)]
        add_evaluation(
            session,
            version.id,
            suite=plan.suite,
            plan_sha256=plan.sha256,
            value=measured.value,
            num_items=plan.count,
            items=items,
            at=bench.clock(),
        )

    return effect


def _drift(bench: Workbench, lease: Lease, on_items: OnItems) -> Effect:
    """Let a candidate and the run's base judge the same samples of the round, evenly chosen from all of them."""
    with transaction(bench.engine) as session:
        candidate = version_of(session, lease.payload["version_id"])
        base = base_version(session, bench.run_id)
        prompts = prompts_at(session, lease.round_id, 0, bench.settings.sampling.prompts_per_round)
        drawn = samples_of(session, lease.round_id, prompts)
    count = min(lease.num_items, len(drawn))
    rows = [drawn[place * len(drawn) // count] for place in range(count)]
    shown = [Shown(prompt_of(row.prompt).claim, bench.images.read(row.image_sha256)) for row in rows]
    frozen = _log_odds(bench, base, shown, lambda done, _: on_items(done // 2, count))
    judged = _log_odds(bench, candidate, shown, lambda done, _: on_items((count + done) // 2, count))
    found = drift_between(judged, frozen)
    return lambda session: add_drift(
        session,
        lease.round_id,
        num_samples=found.n,
        shift=found.shift,
        auc=found.auc,
        num_failed=found.num_failed,
        at=bench.clock(),
    )


def _log_odds(bench: Workbench, version: ModelVersion, shown: Sequence[Shown], on_read: OnItems) -> list[float]:
    """Calibrated log-odds by which a version takes each image for right."""
    calibration = bench.calibration
    if calibration is None:
        raise InconsistentRunError(what="the run measures drift and has no calibration")
    model = bench.models.take(version.sha256)
    reading = read_set(model, bench.domain, shown, on_read, bench.settings.assess.batch_size)
    return [calibration.overall.logistic.log_odds(read.readings) for read in reading]


def real_seed(run_seed: int, round_index: int) -> int:
    """The seed of the replayed pairs of a round."""
    return derived_seed("real", run_seed, round_index)


def _rows(session: Session, lease: Lease, samples_per_prompt: int) -> list[tuple[PromptRow, int]]:
    """(prompt, sample index) of the rows that a unit covers."""
    first, stop = lease.first_row, lease.stop_row
    position = first // samples_per_prompt
    prompts = prompts_at(session, lease.round_id, position, -(-stop // samples_per_prompt))
    return [(prompts[row // samples_per_prompt - position], row % samples_per_prompt) for row in range(first, stop)]


def _drawn_rows(session: Session, lease: Lease, samples_per_prompt: int) -> list[DrawnRow]:
    rows = {(prompt.id, index): prompt for prompt, index in _rows(session, lease, samples_per_prompt)}
    drawn = samples_of(session, lease.round_id, list({prompt.id: prompt for prompt in rows.values()}.values()))
    return [row for row in drawn if (row.prompt.id, row.sample_index) in rows]


def _drawn(
    bench: Workbench,
    model: UnifiedModel,
    prompts: Sequence[PromptRow],
    seeds: Sequence[int],
    sampling: Sampling,
    on_items: OnItems,
) -> tuple[ImageIds, list[Image.Image], list[str]]:
    """Ids (B, L), image and name of one image for each prompt: drawn from nothing, or made of an edit's source."""
    drawn: dict[int, tuple[NDArray[np.int32], Image.Image, str]] = {}
    plain = [i for i, prompt in enumerate(prompts) if prompt.source_sha256 is None]
    if plain:
        texts = [prompts[i].text for i in plain]
        parts = draw_images(
            model,
            texts,
            [seeds[i] for i in plain],
            sampling,
            bench.images.write_all,
            lambda num_drawn: on_items(num_drawn, len(prompts)),
        )
        drawn |= zip(plain, zip(*parts, strict=True), strict=True)
    edits = [(i, prompt, prompt.source_sha256) for i, prompt in enumerate(prompts) if prompt.source_sha256 is not None]
    if edits:
        # The samples of one prompt lie side by side and have one source.
        sources = {name: bench.images.read(name) for name in dict.fromkeys(name for _, _, name in edits)}
        shown, instructions = [sources[name] for _, _, name in edits], [p.instruction or "" for _, p, _ in edits]
        edited = model.edit(shown, instructions, [seeds[i] for i, _, _ in edits], sampling)
        images = model.decode(edited)
        of_edits = zip(edited, images, bench.images.write_all(images), strict=True)
        drawn |= zip((i for i, _, _ in edits), of_edits, strict=True)
        on_items(len(drawn), len(prompts))
    ids, all_images, names = zip(*(drawn[i] for i in range(len(prompts))), strict=True)
    return np.stack(ids), list(all_images), list(names)


def _check(bench: Workbench, row: DrawnRow, image: Image.Image) -> NewAssessment:
    verdict = bench.domain.check(image, prompt_of(row.prompt))
    score = 1.0 if verdict.passed else 0.0
    return NewAssessment(row.sample_id, "checker", "ok", score, failed_criteria=list(verdict.failed))


UNIT_FUNCTIONS: Mapping[str, Callable[[Workbench, Lease, OnItems], Effect]] = {
    "sample": sample,
    "assess": assess,
    "train": train,
    "evaluate": evaluate,
}
