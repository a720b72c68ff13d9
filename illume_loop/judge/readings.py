"""Readings: the numbers that a judge reads of an image, by name.

A reading is one number for an image and its prompt; higher is a better match. Readings of one name are comparable
between images of the same prompt, which is all that rejection sampling needs. If the model gives no number (it wrote
something else), the image lacks the reading and has a problem instead: it is never scored 0.

    prompt-likelihood       log p(prompt | image) in nats, with end of text: the start of a longer prompt is no match
    pointwise-information   prompt-likelihood minus log p(prompt) without an image: what the image says of the prompt
    yes-no                  mean log-odds of yes over the prompt's questions
    yes-no-minimum          the least of these log-odds
    yes-no-difference       mean of p(yes) - p(no) over the questions, -1 to 1; no question outweighs the others
    written-score           the grade, 1 to 5, that the model writes; known in the literature as a bad reward
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from illume_loop.judge.instructions import GRADES, rate
from illume_loop.protocols import UnifiedModel

LIKELIHOOD, INFORMATION = "prompt-likelihood", "pointwise-information"

YES_NO, YES_NO_MINIMUM, YES_NO_DIFFERENCE = "yes-no", "yes-no-minimum", "yes-no-difference"

WRITTEN = "written-score"

OF_QUESTIONS = frozenset({YES_NO, YES_NO_MINIMUM, YES_NO_DIFFERENCE})

READINGS = (LIKELIHOOD, INFORMATION, YES_NO, YES_NO_MINIMUM, YES_NO_DIFFERENCE, WRITTEN)

GRADE_TOKENS = 4


@dataclass(slots=True)
class Read:
    """The readings of one image by name, the log-odds of each question, and the reason for a missing reading."""

    readings: dict[str, float] = field(default_factory=dict)
    log_odds: list[float] = field(default_factory=list)
    problem: str | None = None


def read_batch(
    model: UnifiedModel,
    images: Sequence[Image.Image],
    prompts: Sequence[str],
    questions: Sequence[Sequence[str]],
    wanted: Collection[str],
) -> list[Read]:
    """Return the judge's readings of each image; only what is `wanted` is computed.

    Questions are asked if a reading of them is wanted. Each image goes through the model once for all of its questions
    and its prompt's likelihood. Raises UsageError if the model was never taught to answer questions.
    """
    reads = [Read() for _ in images]
    asks, scores = not OF_QUESTIONS.isdisjoint(wanted), not {LIKELIHOOD, INFORMATION}.isdisjoint(wanted)
    if asks and scores:
        likelihoods, log_odds = model.read(images, prompts, questions)
    elif asks:
        log_odds = model.yes_no_log_odds(images, questions)
    elif scores:
        likelihoods = model.log_likelihood(images, prompts)
    if asks:
        for read, of_image in zip(reads, log_odds, strict=True):
            read.log_odds = [float(value) for value in of_image]
            if read.log_odds:
                read.readings[YES_NO] = sum(read.log_odds) / len(read.log_odds)
                # Not min(): its result depends on the order if one of the values is NaN.
                read.readings[YES_NO_MINIMUM] = float(of_image.min())
                if YES_NO_DIFFERENCE in wanted:
                    # p(yes) - p(no), if the two add up to 1: (1 - 1/e^x) / (1 + 1/e^x).
                    read.readings[YES_NO_DIFFERENCE] = float(np.tanh(of_image / 2).mean())
    if scores:
        for read, value in zip(reads, likelihoods, strict=True):
            read.readings[LIKELIHOOD] = float(value)
    if INFORMATION in wanted:
        _subtract_prior(model, prompts, reads)
    if WRITTEN in wanted:
        answers = model.instruct(images, [rate(prompt) for prompt in prompts], max_tokens=GRADE_TOKENS)
        for read, answer in zip(reads, answers, strict=True):
            if answer.strip() in GRADES:
                read.readings[WRITTEN] = float(answer)
            else:
                read.problem = f"the model wrote '{answer.strip()}' and not a grade from 1 to 5"
    return reads


def _subtract_prior(model: UnifiedModel, prompts: Sequence[str], reads: Sequence[Read]) -> None:
    texts = sorted(set(prompts))
    prior = dict(zip(texts, model.log_prior(texts), strict=True))
    for read, prompt in zip(reads, prompts, strict=True):
        read.readings[INFORMATION] = read.readings[LIKELIHOOD] - float(prior[prompt])
