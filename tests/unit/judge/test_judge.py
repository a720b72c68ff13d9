"""A judge scores by a finite number, fails with a reason, or abstains."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any

import numpy as np
import pytest

from illume_loop.domains.shapes.domain import ShapesDomain
from illume_loop.domains.shapes.grammar import parse
from illume_loop.domains.shapes.render import render
from illume_loop.errors import UsageError
from illume_loop.evals.reliability import reliability
from illume_loop.judge.calibration import Calibration, Fit, Logistic, Source
from illume_loop.judge.judge import Judge, Opinion
from illume_loop.judge.questions import whole_question
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import Scores
from tests.support.canned_model import CannedModel

DOMAIN = ShapesDomain()
RIGHT, WRONG = "a red circle", "a red square"
PROMPT = DOMAIN.parse(RIGHT)
IMAGES = [render(parse(text), Random(3)) for text in (RIGHT, WRONG)]


def _judge(reading: str, model: CannedModel | None = None, **values: Any) -> list[Opinion]:
    judge = Judge(DOMAIN, reading, derived_seed, **values)
    return judge.judge(model or CannedModel(1.0), IMAGES, [PROMPT] * 2, [0, 1])


def _calibration(**coefficients: float) -> Calibration:
    names = tuple(name.replace("_", "-") for name in coefficients)
    measured = reliability([0.2, 0.8], [False, True])
    overall = Logistic(readings=names, coefficients=tuple(coefficients.values()), intercept=0.0)
    of_objects = Logistic(readings=("log-odds",), coefficients=(0.5,), intercept=0.0)
    source = Source(
        judge="0" * 64, domain="shapes", labels="checker", num_prompts=1, num_samples=2, seed=0, guidance_scale=1.0
    )
    fits = {"object": Fit(logistic=of_objects, reliability=measured)}
    return Calibration(source=source, overall=Fit(logistic=overall, reliability=measured), criteria=fits, unfitted={})


@pytest.mark.parametrize(
    "reading", ["prompt-likelihood", "pointwise-information", "yes-no", "yes-no-minimum", "written-score"]
)
def test_every_reading_prefers_the_right_image(reading: str) -> None:
    right, wrong = _judge(reading)
    assert (right.state, wrong.state) == ("ok", "ok")
    assert right.score is not None
    assert wrong.score is not None
    assert right.score > wrong.score
    assert right.score == right.details["readings"][reading]


def test_questions_are_kept_with_their_log_odds_and_by_criterion() -> None:
    _, wrong = _judge("yes-no")
    rows = wrong.details["questions"]
    assert [(row["criterion"], row["question"]) for row in rows] == [(q.criterion, q.text) for q in _asked()]
    answers = DOMAIN.answers(IMAGES[1], PROMPT)
    assert [row["log_odds"] > 0 for row in rows] == answers
    counts = [row["log_odds"] for row in rows if row["criterion"] == "count"]
    assert wrong.details["criteria"]["count"] == pytest.approx(sum(counts) / len(counts))
    assert wrong.failed_criteria == ["object", "count", "attribute"]
    assert _judge("yes-no")[0].failed_criteria == []
    json.dumps(wrong.details, allow_nan=False)


def test_likelihood_alone_asks_nothing() -> None:
    class Silent(CannedModel):
        def yes_no_log_odds(self, images: Any, questions: Any) -> list[Scores]:
            raise AssertionError("nobody asked")

    right, _ = _judge("prompt-likelihood", Silent(1.0))
    assert list(right.details) == ["readings"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_fails_and_is_kept_as_null(value: float) -> None:
    class Broken(CannedModel):
        def yes_no_log_odds(self, images: Any, questions: Sequence[Sequence[str]]) -> list[Scores]:
            return [np.full(len(questions[0]), value), np.full(len(questions[1]), 2.0)]

    broken, whole = _judge("yes-no", Broken(1.0))
    assert (broken.state, broken.score, broken.probability) == ("failed", None, None)
    assert broken.error == f"the model's score was {value}"
    assert broken.details["readings"]["yes-no"] is None
    json.dumps(broken.details, allow_nan=False)
    assert whole.score == 2.0


def test_a_judge_without_words_fails_and_says_why() -> None:
    class Mute(CannedModel):
        def instruct(self, images: Any, instructions: Sequence[str], **more: Any) -> list[str]:
            return ["..."] * len(instructions)

    for opinion in _judge("written-score", Mute(1.0)):
        assert (opinion.state, opinion.error) == ("failed", "the model wrote '...' and not a grade from 1 to 5")
    for opinion in _judge("yes-no", Mute(1.0), critiques=True, retries=1):
        assert (opinion.state, opinion.critique) == ("ok", None), "it can be judged, it has no words for it"
        assert opinion.details["invalid_critiques"] == 2


def test_a_prompt_without_questions_is_asked_about_as_a_whole() -> None:
    class Mute(CannedModel):
        def instruct(self, images: Any, instructions: Sequence[str], **more: Any) -> list[str]:
            return ["..."] * len(instructions)

        def yes_no_log_odds(self, images: Any, questions: Sequence[Sequence[str]]) -> list[Scores]:
            assert [list(of_image) for of_image in questions] == [[whole_question(PROMPT.text).text]] * 2
            return [np.array([3.0]), np.array([-2.0])]

    right, wrong = _judge("yes-no", Mute(1.0), origin="self", retries=2)
    assert (right.state, right.score, right.failed_criteria) == ("ok", 3.0, [])
    assert (wrong.state, wrong.score, wrong.failed_criteria) == ("ok", -2.0, ["whole"])
    assert right.details["invalid_questions"] == 3
    json.dumps(wrong.details, allow_nan=False)


def test_critiques_agree_with_the_log_odds_whatever_the_reading() -> None:
    for opinion in _judge("prompt-likelihood", critiques=True):
        assert opinion.critique is not None
        for criterion in opinion.details["criteria"]:
            expected = "no" if criterion in opinion.failed_criteria else "yes"
            assert opinion.critique[criterion]["verdict"] == expected
    assert _judge("yes-no")[0].critique is None


def test_the_combination_is_the_calibrated_log_odds_of_all_readings() -> None:
    calibration = _calibration(prompt_likelihood=2.0, yes_no=0.5)
    right, wrong = _judge("combined", calibration=calibration)
    for opinion in (right, wrong):
        readings = opinion.details["readings"]
        expected = 2.0 * readings["prompt-likelihood"] + 0.5 * readings["yes-no"]
        assert opinion.score == pytest.approx(expected)
        assert opinion.probability == pytest.approx(1 / (1 + math.exp(-expected)))
    by_question = {row["criterion"]: row for row in right.details["questions"]}
    log_odds = by_question["object"]["log_odds"]
    assert by_question["object"]["probability"] == pytest.approx(1 / (1 + math.exp(-0.5 * log_odds)))
    assert by_question["count"]["probability"] is None, "no fit for this criterion"


def test_within_the_band_the_judge_abstains() -> None:
    calibration = _calibration(yes_no=0.01)
    for opinion in _judge("yes-no", calibration=calibration, band=0.1):
        assert (opinion.state, opinion.score) == ("abstained", None)
        assert opinion.probability == pytest.approx(0.5, abs=0.1)
        assert opinion.details["questions"]
    assert {opinion.state for opinion in _judge("yes-no", calibration=calibration)} == {"ok"}


def test_judging_one_image_fully_says_what_the_model_lacks() -> None:
    class Untaught(CannedModel):
        def yes_no_log_odds(self, images: Any, questions: Any) -> list[Scores]:
            raise UsageError("the model's vocabulary has no word 'yes'")

    judge = Judge(DOMAIN, "prompt-likelihood", derived_seed)
    opinion, lacking = judge.judge_fully(CannedModel(1.0), IMAGES[0], PROMPT)
    assert lacking is None
    assert opinion.critique is not None
    opinion, lacking = judge.judge_fully(Untaught(1.0), IMAGES[0], PROMPT)
    assert opinion.score is not None
    assert "no word 'yes'" in str(lacking)
    with pytest.raises(UsageError, match="no word 'yes'"):
        Judge(DOMAIN, "yes-no", derived_seed).judge_fully(Untaught(1.0), IMAGES[0], PROMPT)


def _asked() -> Any:
    return DOMAIN.questions(PROMPT)


def test_images_are_judged_alike_in_any_batch() -> None:
    judge = Judge(DOMAIN, "yes-no", derived_seed, critiques=True)
    together = judge.judge(CannedModel(1.0), IMAGES, [PROMPT] * 2, [0, 1])
    alone = [judge.judge(CannedModel(1.0), [image], [PROMPT], [i])[0] for i, image in enumerate(IMAGES)]
    assert together == alone
