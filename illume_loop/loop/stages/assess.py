"""Assess a round's samples: by the domain's checker, by models of the run, or by a teacher, who may also write of them.

Invariants:

- The same image gets the same assessment, whatever batch or worker it lands in.
- A model judges once if it is two assessors. In the first round the base is both `self` and `frozen`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
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
    teacher_replies,
)
from illume_db.versions import base_version, version_of
from illume_loop.judge.critiques import Critique
from illume_loop.judge.judge import Judge, Opinion
from illume_loop.judge.questions import whole_question
from illume_loop.judge.replies import Answer
from illume_loop.judge.teacher import ParsedAnswer, Teacher
from illume_loop.judge.teacher_critiques import criteria_of, critique_asked, right_criteria
from illume_loop.loop.assessing import assessment_of, checked
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
            assessment_of(row.sample_id, assessor, by.id, opinion)
            for row, opinion in zip(drawn, opinions[by.id], strict=True)
        ]
    return assessments


class _RunTeacher:
    """The run's teacher, asked about some samples within the run's budget of calls.

    Each answer is stored as it comes, so a unit that is done again asks only what has no answer yet. What the teacher
    would not answer is not stored. `on_images` is called with the number of images done so far.
    """

    def __init__(self, context: RunContext, drawn: Sequence[DrawnRow], images: Sequence[Image.Image]) -> None:
        self.context, self.drawn, self.images = context, drawn, images
        self.one_by_one = Lock()  # many threads may ask the teacher, and the heartbeat needs a database connection too
        self.teacher = Teacher(context.settings.teacher, self._spend)
        names = {row.image_sha256 for row in drawn}
        with transaction(context.engine) as session:
            self.answers = teacher_answers(session, context.run_id, names)
            self.replies = teacher_replies(session, context.run_id, names)

    def judge(self, on_images: Callable[[int], None]) -> list[NewAssessment]:
        """Return assessments by the questions of each sample's prompt. Raises TeacherError.

        The score is the share of yes. An assessment that lacks an answer is failed and has no score.
        """
        asked = [_teachers_questions(self.context, prompt_of(row.prompt).claim) for row in self.drawn]
        answers: list[dict[str, Answer]] = []
        for row, questions in zip(self.drawn, asked, strict=True):
            names = {question.text: (row.image_sha256, question_sha256(question.text)) for question in questions}
            answers.append({text: self.answers[name] for text, name in names.items() if name in self.answers})
        left = [[q.text for q in of_row if q.text not in told] for of_row, told in zip(asked, answers, strict=True)]
        new = self.teacher.ask(self.images, left, on_images, self._keep)
        for told, texts, said in zip(answers, left, new, strict=True):
            told |= zip(texts, said, strict=True)
        return [
            _by_teacher(row.sample_id, questions, [told[question.text] for question in questions])
            for row, questions, told in zip(self.drawn, asked, answers, strict=True)
        ]

    def write(self, on_images: Callable[[int], None]) -> list[ParsedAnswer[Critique]]:
        """Return a critique of each sample, and the number of invalid replies before it. Raises TeacherError."""
        domain, claims = self.context.domain, [prompt_of(row.prompt).claim for row in self.drawn]
        asked = [critique_asked(claim.text, criteria_of(domain, claim)) for claim in claims]
        names = [(row.image_sha256, question_sha256(ask.text)) for row, ask in zip(self.drawn, asked, strict=True)]
        left = [[] if name in self.replies else [ask] for name, ask in zip(names, asked, strict=True)]
        new = self.teacher.told(self.images, left, on_images, lambda at, ask, told: self._keep(at, ask.text, told))
        return [told[0] if told else ParsedAnswer(**self.replies[name]) for name, told in zip(names, new, strict=True)]

    def _spend(self) -> bool:
        with self.one_by_one, transaction(self.context.engine) as session:
            return spend_teacher_call(session, self.context.run_id, self.context.settings.teacher.max_calls)

    def _keep(self, place: int, question: str, said: Answer | ParsedAnswer[Critique]) -> None:
        answer, reply = (None, said) if isinstance(said, ParsedAnswer) else (said, None)
        if answer is not None or (reply is not None and reply.value is not None):
            with self.one_by_one, transaction(self.context.engine) as session:
                keep_teacher_answer(
                    session,
                    self.context.run_id,
                    self.drawn[place].image_sha256,
                    question,
                    answer,
                    at=self.context.clock(),
                    reply=None if reply is None else asdict(reply),
                )
        self.context.on_progress()


def teacher_assessments(
    context: RunContext, drawn: Sequence[DrawnRow], images: Sequence[Image.Image], on_images: Callable[[int], None]
) -> list[NewAssessment]:
    """Return the teacher's assessments of the samples: its answers to questions, its written critique, or both.

    A critique that the teacher would not write in the form that it was asked for is missing. The assessment is then
    failed, unless it has the answers. `on_images` is called with the number of images done so far. Raises TeacherError.
    """
    settings = context.settings
    teacher = _RunTeacher(context, drawn, images)
    if not settings.assess.teacher_writes:
        return teacher.judge(on_images)
    if settings.assess.assessor != "teacher":
        return [
            _with_critique(None, row.sample_id, told, settings.teacher.model)
            for row, told in zip(drawn, teacher.write(on_images), strict=True)
        ]
    judged = teacher.judge(lambda done: on_images(done // 2))
    written = teacher.write(lambda done: on_images((len(drawn) + done) // 2))
    return [
        _with_critique(one, one.sample_id, told, settings.teacher.model)
        for one, told in zip(judged, written, strict=True)
    ]


def _with_critique(
    judged: NewAssessment | None, sample_id: int, told: ParsedAnswer[Critique], model: str
) -> NewAssessment:
    """Return an assessment with the teacher's critique.

    Without answers to questions, the score is the share of criteria that the critique finds fulfilled.
    """
    of_critique: dict[str, object] = {"critique_by": model}
    if told.num_invalid:
        of_critique["invalid_critiques"] = told.num_invalid
    if judged is not None:
        return replace(judged, critique=told.value, details=judged.details | of_critique)
    if told.value is None:
        error = f"the teacher wrote no valid assessment in {told.num_invalid} replies"
        return NewAssessment(sample_id, "teacher", "failed", None, None, [], error, of_critique)
    right = right_criteria(told.value)
    failed = [criterion for criterion, is_right in right.items() if not is_right]
    score = sum(right.values()) / len(right)
    return NewAssessment(sample_id, "teacher", "ok", score, None, failed, None, of_critique, told.value)


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
        assessments.append(checked(context.domain, row.sample_id, prompt_of(row.prompt), image))
        context.on_progress()
    if drawn:
        assessments += model_assessments(context, round_.index, version, base, drawn, images, foreign)
        if context.settings.assess.asks_teacher:
            assessments += teacher_assessments(context, drawn, images, lambda done: on_items(done, len(drawn)))

    def effect(session: Session) -> None:
        add_assessments(session, assessments)
        if context.settings.assess.asks_teacher:
            forget_teacher_answers(session, context.run_id, {row.image_sha256 for row in drawn})

    return effect


def _drawn_rows(session: Session, lease: Lease, samples_per_prompt: int) -> list[DrawnRow]:
    rows = {(prompt.id, index): prompt for prompt, index in rows_of_unit(session, lease, samples_per_prompt)}
    drawn = samples_of(session, lease.round_id, list({prompt.id: prompt for prompt in rows.values()}.values()))
    return [row for row in drawn if (row.prompt.id, row.sample_index) in rows]
