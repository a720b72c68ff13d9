"""The labelled set: train prompts only, the same for the same seed, and labels that nobody gave are left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from PIL import Image

from illume_loop.domains import get_domain
from illume_loop.errors import TooFewLabelsError, UsageError
from illume_loop.judge.calibration import Source
from illume_loop.judge.fitting import (
    DrawnImage,
    Label,
    all_of,
    calibrate,
    checker_labels,
    draw_set,
    read_set,
    teacher_labels,
)
from illume_loop.judge.teacher import Teacher, fixed_budget
from illume_loop.protocols import Scores
from illume_loop.settings import TeacherSettings
from tests.support.canned_model import CannedModel
from tests.support.stub_teacher import stub_teacher

DOMAIN = get_domain("shapes")
SOURCE = Source(judge="0" * 64, domain="shapes", labels="checker", seed=0, guidance_scale=1.0)


def _drawn(count: int = 60, seed: int = 0, model: CannedModel | None = None) -> list[DrawnImage]:
    return draw_set(
        model or CannedModel(0.5),
        DOMAIN,
        num_prompts=count,
        samples_per_prompt=4,
        seed=seed,
        guidance_scale=1.0,
    )


class Unasked(CannedModel):
    """A model that was never taught questions."""

    def yes_no_log_odds(self, images: Sequence[Image.Image], questions: Sequence[Sequence[str]]) -> list[Scores]:
        raise UsageError("the model's vocabulary has no word 'yes'")


def test_only_train_prompts_are_drawn_and_each_as_often() -> None:
    train = {prompt.text for prompt in DOMAIN.prompts("train", 60, 0)}
    shown = _drawn()
    assert {one.prompt.text for one in shown} == train
    assert len(shown) == 240
    images = {one.image.tobytes() for one in shown}
    assert len(images) > 200, "every sample has noise of its own"


def test_the_same_seed_gives_the_same_calibration() -> None:
    def sha256(seed: int) -> str:
        shown = _drawn(seed=seed)
        reads = read_set(CannedModel(0.5), DOMAIN, shown)
        return calibrate(SOURCE, DOMAIN, shown, reads, checker_labels(DOMAIN)(shown)).sha256

    assert sha256(0) == sha256(0)
    assert sha256(0) != sha256(1)


def test_the_judge_is_measured_against_the_checker() -> None:
    shown = _drawn()
    labels = checker_labels(DOMAIN)(shown)
    calibration = calibrate(SOURCE, DOMAIN, shown, read_set(CannedModel(0.5), DOMAIN, shown), labels)
    assert calibration.source.num_samples == 240
    assert calibration.source.num_prompts == len({one.prompt.key for one in shown})
    assert calibration.overall.logistic.readings == (
        "pointwise-information",
        "prompt-likelihood",
        "yes-no",
        "yes-no-minimum",
    )
    assert calibration.overall.reliability.auc == 1.0
    assert calibration.overall.reliability.share_true == sum(label.right is True for label in labels) / 240
    assert {"object", "count", "color"} <= set(calibration.criteria)


def test_a_model_without_questions_is_calibrated_by_likelihood_alone() -> None:
    shown = _drawn()
    reads = read_set(Unasked(0.5), DOMAIN, shown)
    calibration = calibrate(SOURCE, DOMAIN, shown, reads, checker_labels(DOMAIN)(shown))
    assert calibration.overall.logistic.readings == ("pointwise-information", "prompt-likelihood")
    assert calibration.criteria == {}


def test_what_nobody_labelled_is_left_out_and_never_wrong() -> None:
    shown = _drawn()
    labels = checker_labels(DOMAIN)(shown)
    blind = [Label(None, [None] * len(label.answers)) if i % 3 else label for i, label in enumerate(labels)]
    reads = read_set(CannedModel(0.5), DOMAIN, shown)
    calibration = calibrate(SOURCE, DOMAIN, shown, reads, blind)
    assert calibration.source.num_samples == 80
    kept = [label.right for label in blind if label.right is not None]
    assert calibration.overall.reliability.share_true == sum(kept) / 80
    with pytest.raises(TooFewLabelsError, match="0 right and 0 wrong"):
        calibrate(SOURCE, DOMAIN, shown, reads, [Label(None, ())] * len(shown))


@pytest.mark.parametrize(
    ("answers", "right"),
    [
        ([True, True], True),
        ([True, False], False),
        ([None, False], False),
        ([True, None], None),
        ([], None),
    ],
)
def test_an_image_is_right_when_all_answers_are_yes(answers: list[bool | None], right: bool | None) -> None:
    assert all_of(answers) is right


def test_a_teachers_labels_are_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The teacher of this test counts as the checker does, but never tells of colours."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    shown = _drawn(6)
    expected = {
        question.text: answer
        for one, label in zip(shown, checker_labels(DOMAIN)(shown), strict=True)
        for question, answer in zip(DOMAIN.questions(one.prompt), label.answers, strict=True)
    }
    with stub_teacher(lambda _, __, text: "dunno" if "anything" in text else ["no", "yes"][expected[text]]) as stub:
        settings = TeacherSettings(url=stub.url, model="seer", retries=0)
        labels = teacher_labels(DOMAIN, Teacher(settings, fixed_budget(10_000)))(shown[:8])
    for one, label in zip(shown, labels, strict=False):
        for question, answer in zip(DOMAIN.questions(one.prompt), label.answers, strict=True):
            assert answer is (None if "anything" in question.text else expected[question.text])
        assert label.right is all_of(label.answers)
