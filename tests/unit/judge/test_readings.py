"""Readings by name: what each is of, and that nothing is computed that is not wanted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from illume_loop.judge.readings import READINGS, read_batch
from illume_loop.models.illume.backend import IllumeBackend
from illume_loop.protocols import Scores
from illume_loop.settings import AssessSettings
from tests.support.canned_model import CannedModel

PROMPTS = ["a red circle", "a blue ring", "a red circle"]
QUESTIONS = [["is there a circle ?", "is the circle red ?"], [], ["is there a circle ?"]]


class Grading(CannedModel):
    """Writes what it is told to, in turn."""

    def __init__(self, *grades: str) -> None:
        super().__init__(1.0)
        self.grades = grades

    def instruct(self, images: Any, instructions: Sequence[str], **more: Any) -> list[str]:
        return list(self.grades)

    def log_likelihood(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        raise AssertionError("nobody wanted it")


@pytest.fixture
def images() -> list[Image.Image]:
    return [Image.effect_noise((48, 48), 60 + i).convert("RGB") for i in range(3)]


def test_the_settings_know_every_reading() -> None:
    assert set(READINGS) <= set(get_args(AssessSettings.model_fields["reading"].annotation))


def test_each_reading_is_what_its_name_says(sharp_backend: IllumeBackend, images: list[Image.Image]) -> None:
    reads = read_batch(sharp_backend, images, PROMPTS, QUESTIONS, READINGS)
    likelihood = sharp_backend.log_likelihood(images, PROMPTS)
    log_odds = sharp_backend.yes_no_log_odds(images, QUESTIONS)
    for i, read in enumerate(reads):
        prior = sharp_backend.log_prior([PROMPTS[i]])[0]
        assert read.readings["prompt-likelihood"] == pytest.approx(likelihood[i], abs=1e-4)
        assert read.readings["pointwise-information"] == pytest.approx(likelihood[i] - prior, abs=1e-3)
        assert read.log_odds == pytest.approx(log_odds[i].tolist(), abs=1e-3)
        assert (read.problem is None) == ("written-score" in read.readings)
    assert reads[0].readings["yes-no"] == pytest.approx(np.mean(log_odds[0]), abs=1e-3)
    assert reads[0].readings["yes-no-minimum"] == pytest.approx(min(log_odds[0]), abs=1e-3)
    assert "yes-no" not in reads[1].readings, "no question, no mean"


def test_the_difference_is_of_probabilities(images: list[Image.Image]) -> None:
    class Certain(CannedModel):
        def yes_no_log_odds(self, images: Any, questions: Sequence[Sequence[str]]) -> list[Scores]:
            return [np.array([math.log(3.0), -40.0][: len(asked)]) for asked in questions]

    reads = read_batch(Certain(1.0), images, PROMPTS, QUESTIONS, {"yes-no-difference"})
    assert reads[0].readings["yes-no-difference"] == pytest.approx((0.75 - 0.25 - 1.0) / 2)
    assert "yes-no-difference" not in reads[1].readings
    assert reads[2].readings["yes-no-difference"] == pytest.approx(0.5)


def test_only_what_is_wanted_is_read(images: list[Image.Image]) -> None:
    reads = read_batch(Grading("3", " 5 ", "4 of 5"), images, PROMPTS, QUESTIONS, {"written-score"})
    assert [read.readings for read in reads] == [{"written-score": 3.0}, {"written-score": 5.0}, {}]
    assert [read.problem for read in reads] == [None, None, "the model wrote '4 of 5' and not a grade from 1 to 5"]


def test_a_number_that_is_none_stays_visible(images: list[Image.Image]) -> None:
    class Broken(CannedModel):
        def yes_no_log_odds(self, images: Any, questions: Sequence[Sequence[str]]) -> list[Scores]:
            return [np.array([1.0, math.nan][: len(asked)]) for asked in questions]

    reads = read_batch(Broken(1.0), images, PROMPTS, QUESTIONS, {"yes-no"})
    assert math.isnan(reads[0].readings["yes-no"])
    assert math.isnan(reads[0].readings["yes-no-minimum"])
    assert reads[2].readings == {"yes-no": 1.0, "yes-no-minimum": 1.0}
