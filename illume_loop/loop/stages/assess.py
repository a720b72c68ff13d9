"""Assess a round's samples: by the domain's checker, by models of the run, or by a teacher.

Invariants:

- The same image gets the same assessment, whatever batch or worker it lands in.
- A model judges once if it is two assessors. In the first round the base is both `self` and `frozen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock

from PIL import Image
from sqlalchemy.orm import Session

from illume_db.judging import next_prompts
from illume_db.leases import Lease
from illume_db.prompts import PromptRow
from illume_db.rounds import round_of
from illume_db.samples import DrawnRow, NewAssessment, add_assessments, samples_of
from illume_db.sessions import transaction
from illume_db.tables import ModelVersion
from illume_db.teacher import (
    forget_teacher_answers,
    keep_teacher_answer,
    question_sha256,
    spend_teacher_call,
    teacher_answers,
)
from illume_db.versions import base_version, version_of
from illume_loop.judge.judge import Judge, Opinion
from illume_loop.judge.questions import whole_question
from illume_loop.judge.replies import Answer
from illume_loop.judge.teacher import Teacher
from illume_loop.loop.context import RunContext
from illume_loop.loop.prompts import prompt_of
from illume_loop.loop.unit_inputs import Effect, OnItems, derived_seed, rows_of_unit, sample_seed
from illume_loop.protocols import Prompt, Question
from illume_loop.settings import AssessSettings


def judging_models(settings: AssessSettings) -> Iterator[str]:
    """Yield the configured assessors that are models of the run."""
    if settings.assessor in ("self", "shuffled"):
        yield "self"
    if settings.assessor == "frozen" or settings.also_frozen:
        yield "frozen"


def _assessment(sample_id: int, assessor: str, version_id: int, opinion: Opinion) -> NewAssessment:
    return NewAssessment(
        sample_id,
        assessor,
        opinion.state,
        opinion.score,
        version_id,
        opinion.failed_criteria,
        opinion.error,
        opinion.details,
        opinion.critique,
        opinion.probability,
    )


def _teachers_questions(context: RunContext, prompt: Prompt) -> list[Question]:
    """Return the domain's questions for a prompt, or one question about the whole prompt if the domain has none."""
    return context.domain.questions(prompt) or [whole_question(prompt.text)]


def _by_teacher(sample_id: int, questions: Sequence[Question], answers: Sequence[Answer]) -> NewAssessment:
    pairs = list(zip(questions, answers, strict=True))
    details = {"questions": [{"criterion": q.criterion, "question": q.text, "answer": answer} for q, answer in pairs]}
    failed = list(dict.fromkeys(question.criterion for question, answer in pairs if answer is False))
    num_missing = sum(answer is None for answer in answers)
    if num_missing:
        error = f"the teacher said neither yes nor no to {num_missing} of {len(answers)} questions"
        return NewAssessment(sample_id, "teacher", "failed", None, None, failed, error, details)
    score = sum(answer is True for answer in answers) / len(answers)
    return NewAssessment(sample_id, "teacher", "ok", score, None, failed, None, details)


def model_assessments(
    context: RunContext,
    round_index: int,
    version: ModelVersion,
    base: ModelVersion,
    drawn: Sequence[DrawnRow],
    images: Sequence[Image.Image],
    foreign: Mapping[int, PromptRow],
) -> list[NewAssessment]:
    """Return the assessments of the samples by each judging model.

    `version` drew the samples, and `base` is the run's base. The judge also answers the questions of a foreign prompt
    for the first sample of each prompt; `foreign` has these prompts by the position of the sample's own prompt.
    Curation compares both answers to find a judge that says yes to everything.
    """
    seed = context.settings.run.seed
    judge = Judge.of(context.settings.assess, context.domain, partial(derived_seed, "judge", seed), context.calibration)
    prompts = [prompt_of(row.prompt).claim for row in drawn]
    firsts = [i for i, row in enumerate(drawn) if row.sample_index == 0]
    strangers = {i: prompt_of(foreign[drawn[i].prompt.position]).claim for i in firsts}
    controlled = [i for i, stranger in strangers.items() if judge.asks and stranger.key != drawn[i].prompt.key]
    keys = [sample_seed(seed, round_index, row.prompt.text, row.sample_index) for row in drawn]
    opinions: dict[int, list[Opinion]] = {}
    assessments = []
    for assessor in judging_models(context.settings.assess):
        by = base if assessor == "frozen" else version
        if by.id not in opinions:
            model = context.models.take(by.sha256)
            opinions[by.id] = judge.judge(model, images, prompts, keys)
            asked = [images[i] for i in controlled], [strangers[i] for i in controlled]
            for i, value in zip(controlled, judge.control(model, *asked) if controlled else (), strict=True):
                opinions[by.id][i].details["control"] = value
            context.on_progress()
        assessments += [
            _assessment(row.sample_id, assessor, by.id, opinion)
            for row, opinion in zip(drawn, opinions[by.id], strict=True)
        ]
    return assessments


def teacher_assessments(
    context: RunContext, drawn: Sequence[DrawnRow], images: Sequence[Image.Image], on_images: Callable[[int], None]
) -> list[NewAssessment]:
    """Return the teacher's assessments of the samples, within the run's budget of calls.

    The teacher answers the questions of each sample's prompt. Each answer is stored as it comes, so a unit that is done
    again asks only the questions without an answer. The score is the share of yes. An assessment that lacks an answer
    is failed and has no score. `on_images` is called with the number of images judged so far. Raises TeacherError.
    """
    one_by_one = Lock()  # many threads may ask the teacher, and the heartbeat needs a database connection too

    def spend() -> bool:
        with one_by_one, transaction(context.engine) as session:
            return spend_teacher_call(session, context.run_id, context.settings.teacher.max_calls)

    def keep(place: int, question: str, answer: Answer) -> None:
        if answer is not None:  # a question answered with neither yes nor no is asked again
            with one_by_one, transaction(context.engine) as session:
                name = drawn[place].image_sha256
                keep_teacher_answer(session, context.run_id, name, question, answer, at=context.clock())
        context.on_progress()

    asked = [_teachers_questions(context, prompt_of(row.prompt).claim) for row in drawn]
    with transaction(context.engine) as session:
        kept = teacher_answers(session, context.run_id, {row.image_sha256 for row in drawn})
    answers: list[dict[str, Answer]] = []
    for row, questions in zip(drawn, asked, strict=True):
        names = {question.text: (row.image_sha256, question_sha256(question.text)) for question in questions}
        answers.append({text: kept[name] for text, name in names.items() if name in kept})
    left = [[q.text for q in of_row if q.text not in told] for of_row, told in zip(asked, answers, strict=True)]
    new = Teacher(context.settings.teacher, spend).ask(images, left, on_images, keep)
    for told, texts, said in zip(answers, left, new, strict=True):
        told |= zip(texts, said, strict=True)
    return [
        _by_teacher(row.sample_id, questions, [told[question.text] for question in questions])
        for row, questions, told in zip(drawn, asked, answers, strict=True)
    ]


def assess(context: RunContext, lease: Lease, on_items: OnItems) -> Effect:
    """Assess the rows of a unit: by the domain's checker if it has one, and by the configured models or teacher.

    Rows that no unit could draw have no sample and are left out.
    """
    with transaction(context.engine) as session:
        round_ = round_of(session, lease.round_id)
        version = version_of(session, round_.drawing_version_id)
        base = base_version(session, context.run_id)
        drawn = _drawn_rows(session, lease, context.settings.sampling.samples_per_prompt)
        foreign = next_prompts(session, lease.round_id, [row.prompt.position for row in drawn]) if drawn else {}
    images = [context.take_image(row.image_sha256) for row in drawn]
    assessments: list[NewAssessment] = []
    for row, image in zip(drawn, images, strict=True) if context.domain.exact else ():
        assessments.append(_check(context, row, image))
        context.on_progress()
    if drawn:
        assessments += model_assessments(context, round_.index, version, base, drawn, images, foreign)
        if context.settings.assess.assessor == "teacher":
            assessments += teacher_assessments(context, drawn, images, lambda done: on_items(done, len(drawn)))

    def effect(session: Session) -> None:
        add_assessments(session, assessments)
        if context.settings.assess.assessor == "teacher":
            forget_teacher_answers(session, context.run_id, {row.image_sha256 for row in drawn})

    return effect


def _drawn_rows(session: Session, lease: Lease, samples_per_prompt: int) -> list[DrawnRow]:
    rows = {(prompt.id, index): prompt for prompt, index in rows_of_unit(session, lease, samples_per_prompt)}
    drawn = samples_of(session, lease.round_id, list({prompt.id: prompt for prompt in rows.values()}.values()))
    return [row for row in drawn if (row.prompt.id, row.sample_index) in rows]


def _check(context: RunContext, row: DrawnRow, image: Image.Image) -> NewAssessment:
    verdict = context.domain.check(image, prompt_of(row.prompt))
    score = 1.0 if verdict.passed else 0.0
    return NewAssessment(row.sample_id, "checker", "ok", score, failed_criteria=list(verdict.failed))
