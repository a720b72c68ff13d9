"""The judge: a model with a reading, which gives an opinion of each image.

If there is a calibration, each image gets the probability that it is right. The judge abstains if the probability is
within `band` of a half, whatever its reading.

Invariants:
- An image is scored by a finite number, or it is `failed` with a reason, or the judge abstains. A failure is never
  scored 0.
- All that a score rests on (readings, questions with their log-odds, invalid answers) is kept with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from PIL import Image

from illume_loop.errors import UsageError
from illume_loop.judge.calibration import Calibration, abstains
from illume_loop.judge.critiques import SeedOf, verdicts_of, write_critiques
from illume_loop.judge.questions import WHOLE, Origin, PromptQuestions, questions_of, whole_question
from illume_loop.judge.readings import OF_QUESTIONS, YES_NO, Read, read_batch
from illume_loop.protocols import Domain, Prompt, Question, UnifiedModel, encoded_once
from illume_loop.settings import AssessSettings

COMBINED = "combined"
"""The reading that is the calibrated log-odds of all readings together."""


@dataclass(slots=True)
class Opinion:
    """An assessment before it belongs to a sample; its fields are those of the table `assessments`."""

    state: Literal["ok", "abstained", "failed"]
    score: float | None
    failed_criteria: list[str] = field(default_factory=list)
    error: str | None = None
    details: dict[str, Any] = field(default_factory=dict)
    critique: dict[str, Any] | None = None
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Judge:
    """The settings by which a run's judges judge, for any model."""

    domain: Domain
    reading: str
    seed_of: SeedOf
    origin: Origin = "spec"
    retries: int = 0
    critiques: bool = False
    calibration: Calibration | None = None
    band: float = 0.0

    @classmethod
    def of(
        cls, settings: AssessSettings, domain: Domain, seed_of: SeedOf, calibration: Calibration | None = None
    ) -> Self:
        """Return the judge of these settings. If they need a calibration, the caller has to pass one."""
        return cls(
            domain,
            settings.reading,
            seed_of,
            settings.questions,
            settings.retries,
            settings.judge_writes,
            calibration,
            settings.abstain_band,
        )

    def judge(
        self,
        model: UnifiedModel,
        images: Sequence[Image.Image],
        prompts: Sequence[Prompt],
        keys: Sequence[object],
    ) -> list[Opinion]:
        """Return the opinion of `model` on each image, which it encodes once.

        `keys` tell the images apart in all random draws.
        """
        with encoded_once(model):
            return self._judged(model, images, prompts, keys)

    def _judged(
        self,
        model: UnifiedModel,
        images: Sequence[Image.Image],
        prompts: Sequence[Prompt],
        keys: Sequence[object],
    ) -> list[Opinion]:
        asked = self._asked(model, prompts) if self.asks else {}
        of_each = [asked.get(prompt.text, PromptQuestions(())) for prompt in prompts]
        texts = [[question.text for question in one.questions] for one in of_each]
        reads = read_batch(model, images, [prompt.text for prompt in prompts], texts, self._wanted())
        opinions = [self._opinion(read, one) for read, one in zip(reads, of_each, strict=True)]
        if self.critiques:
            self._write_critiques(model, images, prompts, keys, of_each, reads, opinions)
        return opinions

    @property
    def asks(self) -> bool:
        """True if the judge asks questions."""
        return not OF_QUESTIONS.isdisjoint(self._wanted())

    def control(
        self, model: UnifiedModel, images: Sequence[Image.Image], prompts: Sequence[Prompt]
    ) -> list[float | None]:
        """Return the mean log-odds of the questions of foreign `prompts`, for which the images were not drawn.

        The value is None if the model gave no finite number. A judge that says yes to foreign questions as readily as
        to an image's own says yes to everything.
        """
        asked = self._asked(model, prompts)
        texts = [[question.text for question in asked[prompt.text].questions] for prompt in prompts]
        reads = read_batch(model, images, [prompt.text for prompt in prompts], texts, {YES_NO})
        return [_finite(read.readings.get(YES_NO, math.nan)) for read in reads]

    def judge_fully(self, model: UnifiedModel, image: Image.Image, prompt: Prompt) -> tuple[Opinion, UsageError | None]:
        """Return the opinion on one image with all questions and a critique, even if the score needs neither.

        A model that was never taught questions gives its score alone, with the error that says so. Raises UsageError if
        the score needs the questions.
        """
        try:
            (opinion,) = replace(self, critiques=True).judge(model, [image], [prompt], [0])
        except UsageError as error:
            (opinion,) = self.judge(model, [image], [prompt], [0])
            return opinion, error
        return opinion, None

    def _needed(self) -> set[str]:
        """Return the readings without which there is no score."""
        needed = set() if self.reading == COMBINED else {self.reading}
        return needed if self.calibration is None else needed | set(self.calibration.overall.logistic.readings)

    def _wanted(self) -> set[str]:
        return self._needed() | ({YES_NO} if self.critiques else set())

    def _asked(self, model: UnifiedModel, prompts: Sequence[Prompt]) -> Mapping[str, PromptQuestions]:
        """Return the questions of each prompt by its text; a prompt without questions is asked about as a whole."""
        found = questions_of(
            prompts, self.domain, model, origin=self.origin, retries=self.retries, seed_of=self.seed_of
        )
        return {
            text: asked if asked.questions else replace(asked, questions=(whole_question(text),))
            for text, asked in found.items()
        }

    def _opinion(self, read: Read, asked: PromptQuestions) -> Opinion:
        details = _details(read, asked, self.calibration)
        failed = [name for name, right in _verdicts(read, asked).items() if not right]
        failed += [WHOLE for question, said in _answered(read, asked) if question.criterion == WHOLE and said <= 0]
        try:
            score, probability = self._numbers(read)
        except _NoNumberError as error:
            return Opinion("failed", None, failed, str(error), details)
        if probability is not None and abstains(probability, self.band):
            return Opinion("abstained", None, failed, None, details, probability=probability)
        return Opinion("ok", score, failed, None, details, probability=probability)

    def _numbers(self, read: Read) -> tuple[float, float | None]:
        """Return the score and the calibrated probability. Raises _NoNumberError."""
        for name in sorted(self._needed()):
            if name not in read.readings:
                raise _NoNumberError(read.problem or f"the model gave no {name}")
            if not math.isfinite(read.readings[name]):
                raise _NoNumberError(f"the model's score was {read.readings[name]}")
        if self.calibration is None:
            return read.readings[self.reading], None
        log_odds = self.calibration.overall.logistic.log_odds(read.readings)
        probability = self.calibration.probability(read.readings)
        return (log_odds if self.reading == COMBINED else read.readings[self.reading]), probability

    def _write_critiques(
        self,
        model: UnifiedModel,
        images: Sequence[Image.Image],
        prompts: Sequence[Prompt],
        keys: Sequence[object],
        of_each: Sequence[PromptQuestions],
        reads: Sequence[Read],
        opinions: Sequence[Opinion],
    ) -> None:
        """Write critiques of the images that were judged by their questions, into the opinions."""
        rows = [i for i, opinion in enumerate(opinions) if opinion.state != "failed" and reads[i].log_odds]
        if not rows:
            return
        answers = write_critiques(
            model,
            [images[i] for i in rows],
            [prompts[i].text for i in rows],
            [_verdicts(reads[i], of_each[i]) for i in rows],
            retries=self.retries,
            seed_of=self.seed_of,
            keys=[keys[i] for i in rows],
        )
        for i, answer in zip(rows, answers, strict=True):
            opinions[i].critique = answer.value
            if answer.num_invalid:
                opinions[i].details["invalid_critiques"] = answer.num_invalid


class _NoNumberError(Exception):
    """The reason why an image could not be judged."""


def _verdicts(read: Read, asked: PromptQuestions) -> dict[str, bool]:
    return verdicts_of(asked.questions, read.log_odds) if read.log_odds else {}


def _answered(read: Read, asked: PromptQuestions) -> Iterator[tuple[Question, float]]:
    """Return each question with its log-odds; nothing if no questions were asked."""
    return zip(asked.questions, read.log_odds, strict=True) if read.log_odds else iter(())


def _details(read: Read, asked: PromptQuestions, calibration: Calibration | None) -> dict[str, Any]:
    """Return the details that are kept with an assessment: readings, questions, criteria, invalid answers.

    Numbers that are not finite become null, because JSON has no NaN.
    """
    details: dict[str, Any] = {"readings": {name: _finite(value) for name, value in read.readings.items()}}
    if read.log_odds:
        details["questions"] = []
        by_criterion: dict[str, list[float]] = {}
        for question, value in zip(asked.questions, read.log_odds, strict=True):
            row = {"criterion": question.criterion, "question": question.text, "log_odds": _finite(value)}
            if calibration is not None and math.isfinite(value):
                row["probability"] = calibration.criterion_probability(question.criterion, value)
            details["questions"].append(row)
            by_criterion.setdefault(question.criterion, []).append(value)
        details["criteria"] = {name: _finite(sum(values) / len(values)) for name, values in by_criterion.items()}
    if asked.num_invalid:
        details["invalid_questions"] = asked.num_invalid
    return details


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
