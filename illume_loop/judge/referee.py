"""The referee, which decides about images if a domain has no checker: the run's base, which is never retrained.

An image is right if every question of its prompt is more probably yes than no or, with a calibration, if it is more
probably right than wrong.

The verdicts need not be true: the base shares the blind spots of the images that it draws. A detector's results say how
far the referee can be trusted (`eval --suite geneval --results`).

Invariants:
- Parent and candidate are judged by the same model with the same questions, so no candidate gains by becoming a milder
  judge.
- An image without a number ends the measurement; it is never taken as wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from illume_loop.errors import NoVerdictError
from illume_loop.judge.calibration import Calibration
from illume_loop.judge.critiques import SeedOf
from illume_loop.judge.questions import Origin, questions_of, whole_question
from illume_loop.judge.readings import YES_NO, Read, read_batch
from illume_loop.protocols import Decision, Domain, Prompt, Question, UnifiedModel, Verdict

OnItems = Callable[[int, int], None]
"""A function that is called with (images judged, images in all)."""


@dataclass(frozen=True, slots=True)
class Referee:
    """A model as the independent judge; `take` loads it when it is needed."""

    domain: Domain
    take: Callable[[], UnifiedModel]
    seed_of: SeedOf
    origin: Origin = "spec"
    retries: int = 0
    batch_size: int = 256
    calibration: Calibration | None = None

    def decide(
        self, images: Sequence[Image.Image], prompts: Sequence[Prompt], on_items: OnItems = lambda *_: None
    ) -> list[Verdict]:
        """Decide if each image shows its prompt, and which criteria failed. Raises NoVerdictError, UsageError."""
        return [decision.verdict for decision in self.decisions(images, prompts, on_items)]

    def decisions(
        self, images: Sequence[Image.Image], prompts: Sequence[Prompt], on_items: OnItems = lambda *_: None
    ) -> list[Decision]:
        """Return the verdicts of `decide` with the answers behind them.

        Raises NoVerdictError, and UsageError if the model cannot answer questions.
        """
        found: list[Decision] = []
        for start in range(0, len(images), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            found += self._of_batch(self.take(), images[chunk], prompts[chunk])
            on_items(len(found), len(images))
        return found

    def _of_batch(
        self, model: UnifiedModel, images: Sequence[Image.Image], prompts: Sequence[Prompt]
    ) -> list[Decision]:
        asked = questions_of(
            prompts, self.domain, model, origin=self.origin, retries=self.retries, seed_of=self.seed_of
        )
        questions = [asked[prompt.text].questions or (whole_question(prompt.text),) for prompt in prompts]
        wanted = {YES_NO} | set(self.calibration.overall.logistic.readings if self.calibration else ())
        texts = [[question.text for question in of_image] for of_image in questions]
        reads = read_batch(model, images, [prompt.text for prompt in prompts], texts, wanted)
        return [
            self._decision(read, of_image, prompt)
            for read, of_image, prompt in zip(reads, questions, prompts, strict=True)
        ]

    def _decision(self, read: Read, questions: Sequence[Question], prompt: Prompt) -> Decision:
        said = self.calibration.overall.logistic.log_odds(read.readings) if self.calibration else min(read.log_odds)
        if not math.isfinite(said) or not all(map(math.isfinite, read.log_odds)):
            raise NoVerdictError(text=prompt.text)
        answered = zip(questions, read.log_odds, strict=True)
        failed = tuple(dict.fromkeys(question.criterion for question, value in answered if value <= 0))
        return Decision(Verdict(said > 0, failed), questions, read.log_odds)
