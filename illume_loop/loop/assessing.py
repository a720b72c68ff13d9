"""Who judges a round's samples besides the checker: models of the run, or a teacher, and the assessments they give.

Guarantee: the same image is judged the same, whatever batch or worker it lands in; where two assessors are one model
(the base in the first round is both `self` and `frozen`), it judges once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from threading import Lock

from PIL import Image

from illume_db.prompts import PromptRow
from illume_db.samples import DrawnRow, NewAssessment
from illume_db.sessions import transaction
from illume_db.tables import ModelVersion
from illume_db.teacher import keep_teacher_answer, question_sha256, spend_teacher_call, teacher_answers
from illume_loop.assess.judging import Judge, Opinion
from illume_loop.assess.questions import whole_question
from illume_loop.assess.referee import Referee
from illume_loop.assess.replies import Answer
from illume_loop.assess.teacher import Teacher
from illume_loop.config import AssessSettings
from illume_loop.domains.protocol import Prompt, Question
from illume_loop.loop.plan import derived_seed, sample_seed
from illume_loop.loop.prompts import prompt_of
from illume_loop.loop.workbench import Workbench


def model_assessments(
    bench: Workbench,
    round_index: int,
    version: ModelVersion,
    base: ModelVersion,
    drawn: Sequence[DrawnRow],
    images: Sequence[Image.Image],
    foreign: Mapping[int, PromptRow],
) -> list[NewAssessment]:
    """What each judging model says of each sample; `version` drew them, `base` is the run's.

    Of each prompt's first sample the judge is also asked the questions of a foreign prompt, those by position.
    """
    seed = bench.settings.run.seed
    judge = Judge.of(bench.settings.assess, bench.domain, partial(derived_seed, "judge", seed), bench.calibration)
    prompts = [prompt_of(row.prompt).claim for row in drawn]
    firsts = [i for i, row in enumerate(drawn) if row.sample_index == 0]
    strangers = {i: prompt_of(foreign[drawn[i].prompt.position]).claim for i in firsts}
    controlled = [i for i, stranger in strangers.items() if judge.asks and stranger.key != drawn[i].prompt.key]
    keys = [sample_seed(seed, round_index, row.prompt.text, row.sample_index) for row in drawn]
    opinions: dict[int, list[Opinion]] = {}
    assessments = []
    for assessor in judging_models(bench.settings.assess):
        by = base if assessor == "frozen" else version
        if by.id not in opinions:
            model = bench.models.take(by.sha256)
            opinions[by.id] = judge.judge(model, images, prompts, keys)
            asked = [images[i] for i in controlled], [strangers[i] for i in controlled]
            for i, value in zip(controlled, judge.control(model, *asked) if controlled else (), strict=True):
                opinions[by.id][i].details["control"] = value
            bench.on_progress()
        assessments += [
            _assessment(row.sample_id, assessor, by.id, opinion)
            for row, opinion in zip(drawn, opinions[by.id], strict=True)
        ]
    return assessments


def teacher_assessments(
    bench: Workbench, drawn: Sequence[DrawnRow], images: Sequence[Image.Image], on_images: Callable[[int], None]
) -> list[NewAssessment]:
    """What the teacher answers to the questions of each sample's prompt, within the run's budget of calls.

    Answers are kept as they come, so a unit that is done again asks only what is not answered yet. The score is the
    share of yes, and there is none where an answer is missing. `on_images` hears how many images are judged. Raises
    TeacherError.
    """
    one_by_one = Lock()  # the heartbeat needs a connection too, and the teacher may be asked by many threads

    def spend() -> bool:
        with one_by_one, transaction(bench.engine) as session:
            return spend_teacher_call(session, bench.run_id, bench.settings.teacher.max_calls)

    def keep(place: int, question: str, answer: Answer) -> None:
        if answer is not None:  # neither yes nor no is asked for again
            with one_by_one, transaction(bench.engine) as session:
                name = drawn[place].image_sha256
                keep_teacher_answer(session, bench.run_id, name, question, answer, at=bench.clock())
        bench.on_progress()

    asked = [_teachers_questions(bench, prompt_of(row.prompt).claim) for row in drawn]
    with transaction(bench.engine) as session:
        kept = teacher_answers(session, bench.run_id, {row.image_sha256 for row in drawn})
    answers: list[dict[str, Answer]] = []
    for row, questions in zip(drawn, asked, strict=True):
        names = {question.text: (row.image_sha256, question_sha256(question.text)) for question in questions}
        answers.append({text: kept[name] for text, name in names.items() if name in kept})
    left = [[q.text for q in of_row if q.text not in told] for of_row, told in zip(asked, answers, strict=True)]
    new = Teacher(bench.settings.teacher, spend).ask(images, left, on_images, keep)
    for told, texts, said in zip(answers, left, new, strict=True):
        told |= zip(texts, said, strict=True)
    return [
        _by_teacher(row.sample_id, questions, [told[question.text] for question in questions])
        for row, questions, told in zip(drawn, asked, answers, strict=True)
    ]


def referee_of(bench: Workbench, base_sha256: str) -> Referee:
    """The run's base as the independent judge of a domain that has no checker."""
    settings = bench.settings
    return Referee(
        bench.domain,
        lambda: bench.models.take(base_sha256),
        partial(derived_seed, "referee", settings.run.seed),
        settings.assess.questions,
        settings.assess.retries,
        settings.assess.batch_size,
        bench.calibration,
    )


def _teachers_questions(bench: Workbench, prompt: Prompt) -> list[Question]:
    """Those of the domain; a prompt that it knows no questions of is asked for as a whole."""
    return bench.domain.questions(prompt) or [whole_question(prompt.text)]


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


def judging_models(settings: AssessSettings) -> Iterator[str]:
    """The assessors among the settings' that are models of the run."""
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
