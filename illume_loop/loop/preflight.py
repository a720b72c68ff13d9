"""The preflight of a new run: it tries one prompt through every stage before the run begins.

Invariants:

- Nothing is recorded: no sample, assessment, row or image reaches a database or a store.
- The draws of a run are keyed by its seed, round and prompt, so the draws made here change none of them.
- A stage that fails here would also fail in the run, after hours. The error says so in one sentence with the stage.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sqlalchemy.orm import Session

from illume_db.curation import ExampleRow, SampleRow
from illume_db.prompts import PromptRow
from illume_db.runs import add_event, needs_preflight
from illume_db.sessions import transaction
from illume_db.units import NewUnit
from illume_db.versions import base_version
from illume_loop.domains import get_domain
from illume_loop.domains.text.prompt_set import PromptSet
from illume_loop.engine.drawing import draw_images
from illume_loop.errors import (
    ConflictError,
    IllumeLoopError,
    NoCheckerError,
    PreflightError,
    UnhealthyError,
    UsageError,
)
from illume_loop.judge.calibration import Calibration, read_calibration
from illume_loop.judge.critiques import Critique
from illume_loop.judge.fitting import DrawnImage, checker_labels, read_set
from illume_loop.judge.judge import Judge, Opinion
from illume_loop.judge.questions import whole_question
from illume_loop.judge.referee import Referee
from illume_loop.judge.teacher import Spend, Teacher, fixed_budget
from illume_loop.judge.teacher_critiques import criteria_of, critique_asked
from illume_loop.loop.canonical import check_splits, manifest_sha256
from illume_loop.loop.context import RunContext, stored_calibration
from illume_loop.loop.gate_plans import MeasurePlan, gate_plans, has_understanding_guard
from illume_loop.loop.stages.assess import judging_models
from illume_loop.loop.stages.calibrate import AUTO
from illume_loop.loop.stages.dialogues import written
from illume_loop.loop.stages.evaluate import measure
from illume_loop.loop.stages.manifest import manifest_rows, new_examples
from illume_loop.loop.stages.plan import round_prompts
from illume_loop.loop.stages.train import training_rows
from illume_loop.loop.unit_inputs import decode_of, derived_seed
from illume_loop.models.shipped import MOST_TOLD, base_path, unknown_words_message
from illume_loop.protocols import Domain, DrawsScored, HasVocabulary, Prompt, RealPair, UnifiedModel
from illume_loop.settings import Settings, TeacherSettings
from illume_loop.train.candidates import try_rows

PREFLIGHT = "preflight"
"""The suite of the unit by which a worker does the preflight."""
NUM_DRAWN = 2
"""The images drawn per prompt. A preference needs two, and the judge may fail on a single one by bad luck."""
SOURCE = "source"
MOST_LESSONS = 8
"""The calls that an endpoint may refuse before the client knows how to ask it."""


@dataclass(slots=True)
class _PreflightSamples:
    """A prompt of the first round, with its images and the opinions of the judge."""

    prompt: Prompt
    ids_BL: NDArray[np.int32]
    images: list[Image.Image]
    opinions: list[Opinion] = field(default_factory=list)
    written: Critique | None = None
    """The teacher's critique of the first image, if the teacher writes them."""

    def rows(self) -> list[SampleRow]:
        """Return the samples as curation reads them from the database. An image is named by its place."""
        prompt = self.prompt
        instruction, target, source = (
            (prompt.instruction, prompt.target, SOURCE) if prompt.is_edit else (None, None, None)
        )
        row = PromptRow(
            "train",
            prompt.key,
            prompt.category,
            prompt.text,
            dict(prompt.spec),
            instruction,
            target,
            source,
            position=0,
        )
        return [SampleRow(i, 1, i, row, ids_L, f"{prompt.is_edit:d}/{i}") for i, ids_L in enumerate(self.ids_BL)]


@dataclass(slots=True)
class Preflight:
    """One prompt, and one edit if the settings ask for edits, on their way through the stages of a round."""

    settings: Settings
    domain: Domain
    model: UnifiedModel
    """The run's base."""
    calibration: Calibration | None = None
    """The judge's calibration; None without one, and before an automatic one is fitted."""
    tried: list[_PreflightSamples] = field(default_factory=list)
    rows: list[ExampleRow] = field(default_factory=list)
    pairs: list[RealPair] = field(default_factory=list)

    def run(self) -> list[str]:
        """Try every stage; return sentences about what the run will lack.

        Raises PreflightError if a stage cannot work. UnhealthyError and ConflictError are passed on, because another
        start may succeed.
        """
        stages = (
            ("drawing", self.draw),
            ("judging", self.judge),
            ("curation", self.curate),
            ("training", self.train),
            ("the gate", self.measure),
        )
        for stage, attempt in stages:
            try:
                attempt()
            except (UnhealthyError, ConflictError):
                raise
            except IllumeLoopError as error:
                raise PreflightError(stage=stage, reason=str(error).rstrip(".")) from error
            except Exception as error:  # plug-ins and backends are other people's code
                told = f"{type(error).__name__}: {error}".rstrip(".: ")
                raise PreflightError(stage=stage, reason=f"{told} (`illume-loop --debug` shows where)") from error
        return self._notes()

    def draw(self) -> None:
        """Draw as the first round does, with its decode."""
        sampling = self.settings.sampling
        decode = decode_of(sampling)
        seeds = [derived_seed("preflight", self.settings.run.seed, i) for i in range(NUM_DRAWN)]
        prompts = round_prompts(self.domain, self.settings, 1)
        first = {prompt.is_edit: prompt for prompt in reversed(prompts)}
        for prompt in first.values():
            json.dumps(dict(prompt.spec))
            if prompt.is_edit:
                sources = [self.domain.source(prompt)] * NUM_DRAWN
                ids_BL = self.model.edit(sources, [prompt.instruction] * NUM_DRAWN, seeds, decode)
                images = self.model.decode(ids_BL)
            else:
                ids_BL, images, _ = draw_images(self.model, [prompt.text] * NUM_DRAWN, seeds, decode, _as_png)
            self.tried.append(_PreflightSamples(prompt, np.asarray(ids_BL), images))
        if sampling.minimal_pairs:
            self.domain.partner(prompts[0], 0)

    def judge(self) -> None:
        """Judge the images by each judge of the run."""
        if (
            self.settings.train.learns_from_rewards
            and "checker" in self.settings.grpo.weights
            and not self.domain.exact
        ):
            instead = "name self or frozen in grpo.scorers"
            raise NoCheckerError(domain=self.domain.name, what="the scorer checker", instead=instead)
        for tried in self.tried:
            if self.domain.exact:
                for image in tried.images:
                    self.domain.check(image, tried.prompt)
            if self.settings.assess.calibration:
                self._read_for_calibration(tried)
            if any(judging_models(self.settings.assess)) and not self._awaits_calibration:
                self._judge_by_model(tried)
            if self.settings.assess.assessor == "teacher":
                self._ask_teacher(tried)
            if self.settings.assess.teacher_writes:
                self._have_teacher_write(tried)

    def curate(self) -> None:
        """Make the rows of a manifest, as curation does."""
        settings = self.settings
        pairs = self.domain.real_pairs(min(NUM_DRAWN, settings.curate.real_rows), derived_seed("preflight"))
        accepted, preferences, assessments = [], [], []
        for tried in self.tried:
            best, worse = tried.rows()
            accepted.append(best)
            preferences += [(best, worse)] if settings.train.learns_from_pairs else []
            critique = tried.written or next((opinion.critique for opinion in tried.opinions if opinion.critique), None)
            if settings.train.learns_assessments and critique:
                told = written(critique)
                assessments.append(ExampleRow("assess", best.prompt.text, None, best, answer=told))
                assessments.append(ExampleRow("correct", best.prompt.text, None, best, worse, told))
        self.pairs = pairs
        self.rows = manifest_rows(accepted, pairs, settings.curate, preferences, assessments)
        check_splits(self.rows, self.domain.split_of, 1)
        manifest_sha256(self.rows)
        new_examples(self.rows)

    def train(self) -> None:
        """Prepare the rows as a training reads them, without learning from them."""
        images = {
            f"{tried.prompt.is_edit:d}/{i}": image for tried in self.tried for i, image in enumerate(tried.images)
        }
        for tried in self.tried:
            if tried.prompt.is_edit:
                images[SOURCE] = self.domain.source(tried.prompt)
        rows = training_rows(self.rows, self.pairs, self.model.encode, images.__getitem__)
        try_rows(self.model, rows, self.settings.train)
        if self.settings.train.learns_from_rewards and not isinstance(self.model, DrawsScored):
            raise UsageError(
                f"train.objective = 'grpo' needs a model that tells the log-probabilities of what it draws, and the "
                f"backend of {self.settings.run.base} cannot; take another train.objective"
            )

    def measure(self) -> None:
        """Measure one item of each suite of the gate."""
        plans = gate_plans(self.domain, self.settings)
        referee = None if self.domain.exact else self._referee()
        for plan in (plans.looks(1)[0], *plans.guards.values()):
            try:
                measure(_of_one_item(plan), lambda: self.model, self.domain, lambda *_: None, referee)
            except UsageError as error:
                if referee is None:
                    raise
                raise UsageError(
                    f"in the domain '{self.domain.name}' the base decides at the gate by answering questions, and "
                    f"{self.settings.run.base} cannot: {error}"
                ) from error

    @property
    def _awaits_calibration(self) -> bool:
        return self.settings.assess.calibration == AUTO and self.settings.assess.reading == "combined"

    def _read_for_calibration(self, tried: _PreflightSamples) -> None:
        shown = [DrawnImage(tried.prompt.claim, image) for image in tried.images]
        read_set(self.model, self.domain, shown)
        if self.settings.assess.calibration == AUTO:
            checker_labels(self.domain)(shown)

    def _judge_by_model(self, tried: _PreflightSamples) -> None:
        assess = self.settings.assess
        if self.calibration is None:
            assess = assess.model_copy(update={"abstain_band": 0.0})
        judge = Judge.of(assess, self.domain, self._seed_of("judge"), self.calibration)
        claims = [tried.prompt.claim] * NUM_DRAWN
        tried.opinions = judge.judge(self.model, tried.images, claims, list(range(NUM_DRAWN)))
        if judge.asks:
            judge.control(self.model, tried.images[:1], claims[:1])
        failed = [opinion for opinion in tried.opinions if opinion.state == "failed"]
        if len(failed) == NUM_DRAWN:
            raise UsageError(
                f"the judge could not score an image of '{tried.prompt.claim.text}' ({failed[0].error}); choose "
                "another assess.reading or assess.assessor"
            )
        lacks_critique = self.settings.assess.judge_writes and not any(opinion.critique for opinion in tried.opinions)
        if self.settings.train.learns_assessments and lacks_critique:
            raise UsageError(
                f"train.objective = 'assess-sft' learns from critiques, and {self.settings.run.base} wrote no valid "
                "one of its images; take another run.base, or train.objective = 'sft'"
            )

    def _ask_teacher(self, tried: _PreflightSamples) -> None:
        settings, claim = self.settings.teacher, tried.prompt.claim
        question, *_ = self.domain.questions(claim) or [whole_question(claim.text)]
        teacher = Teacher(settings, _budget_of_one(settings))
        [[answer]] = teacher.ask(tried.images[:1], [[question.text]])
        if answer is None:
            raise UsageError(
                f"the teacher {settings.model} said neither yes nor no to '{question.text}'; name another teacher.model"
            )

    def _have_teacher_write(self, tried: _PreflightSamples) -> None:
        settings, claim = self.settings.teacher, tried.prompt.claim
        ask = critique_asked(claim.text, criteria_of(self.domain, claim))
        teacher = Teacher(settings, _budget_of_one(settings))
        [[told]] = teacher.told(tried.images[:1], [[ask]])
        if told.value is None:
            raise UsageError(
                f"the teacher {settings.model} wrote no valid assessment of an image of '{claim.text}' in "
                f"{told.num_invalid} replies; name another teacher.model"
            )
        tried.written = told.value

    def _referee(self) -> Referee:
        assess = self.settings.assess
        return Referee(
            self.domain,
            lambda: self.model,
            self._seed_of("referee"),
            assess.questions,
            assess.retries,
            assess.batch_size,
            self.calibration,
        )

    def _seed_of(self, who: str) -> Callable[..., int]:
        return partial(derived_seed, "preflight", who, self.settings.run.seed)

    def _notes(self) -> list[str]:
        notes = []
        if not has_understanding_guard(self.domain):
            notes.append(
                f"the domain '{self.domain.name}' has no reading probes, so the gate does not guard understanding"
            )
        heldout = self.domain.prompts("heldout", self.settings.gate.heldout_prompts, self.settings.run.seed)
        drawn = [prompt for prompt in round_prompts(self.domain, self.settings, 1) if not prompt.is_edit]
        texts = [prompt.text for prompt in (*drawn, *heldout)]
        unknown = unknown_words_message(self.settings.run.base, self.model, texts)
        return [*notes, *filter(None, [unknown, self._words_of_teacher()])]

    def _words_of_teacher(self) -> str:
        """Return the sentence on words that the teacher writes and the base has no id for; "" if it knows all."""
        texts = [written(tried.written) for tried in self.tried if tried.written is not None]
        if not isinstance(self.model, HasVocabulary):
            return ""
        words = list(dict.fromkeys(word for text in texts for word in self.model.unknown_words(text)))
        if not words:
            return ""
        shown = ", ".join(f"'{word}'" for word in words[:MOST_TOLD])
        return f"{self.settings.run.base} has no word for {shown} of the teacher's assessment, and cannot learn them"


def _budget_of_one(settings: TeacherSettings) -> Spend:
    """Return the budget of one question: its tries, and calls from which the client learns the endpoint's dialect."""
    return fixed_budget(settings.retries + 1 + MOST_LESSONS)


def preflight_of_settings(
    settings: Settings, prompts: PromptSet, load: Callable[[Path, str], UnifiedModel]
) -> list[str]:
    """Try one prompt before a run is made; return sentences about what the run will lack.

    Raises the errors of `Preflight.run`.
    """
    named = settings.assess.calibration
    calibration = read_calibration(Path(named)) if named not in ("", AUTO) else None
    base = load(base_path(settings.run.base), settings.runtime.device)
    return Preflight(settings, get_domain(settings.run.domain, prompts), base, calibration).run()


def preflight_units(settings: Settings, session: Session, run_id: int) -> list[NewUnit]:
    """Return the unit of the preflight, if workers do the run and none has done the unit yet.

    The coordinator of workers loads no model, so it cannot do the preflight itself.
    """
    if settings.run.executor == "inline" or not settings.run.preflight:
        return []
    unit = NewUnit("evaluate", f"evaluate/{PREFLIGHT}", {"suite": PREFLIGHT})
    return [unit] if needs_preflight(session, run_id, unit.key) else []


def preflight_of_run(context: RunContext) -> Callable[[Session], None]:
    """Try one prompt of a run; return the function that records in its event log what the run will lack.

    Raises the errors of `Preflight.run`.
    """
    with transaction(context.engine) as session:
        base = base_version(session, context.run_id)
    calibration = stored_calibration(context.engine, context.run_id) if context.settings.assess.calibration else None
    notes = Preflight(context.settings, context.domain, context.models.take(base.sha256), calibration).run()

    def effect(session: Session) -> None:
        for note in notes:
            add_event(session, context.run_id, PREFLIGHT, note, at=context.clock())

    return effect


def _of_one_item(plan: MeasurePlan) -> MeasurePlan:
    """Return a plan cut to its first item. Diversity keeps two images of its prompt."""
    num_seeds = 2 if plan.suite == "diversity" else 1
    changes: dict[str, Any] = {"prompts": plan.prompts[:1], "seeds": plan.seeds[:num_seeds], "others": plan.others[:1]}
    return replace(plan, count=1, num_kept=0, **changes)


def _as_png(images: Sequence[Image.Image]) -> list[str]:
    """Encode images as the store does, but keep none."""
    for image in images:
        image.save(io.BytesIO(), "PNG")
    return [""] * len(images)
