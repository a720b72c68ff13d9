"""The labelled set that a calibration is fitted on: images of train prompts, what the judge reads, what is true.

Guarantee: everything but a teacher's and people's labels follows from the arguments, so the same call gives the same
calibration. Prompts come from the train split: held-out prompts stay unseen by whatever the gate's judge decides.

What nobody could label is left out and counted, never taken for wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from illume_loop.assess.calibration import LOG_ODDS, Calibration, Source
from illume_loop.assess.fitting import Labelled, fit_calibration
from illume_loop.assess.readings import INFORMATION, LIKELIHOOD, YES_NO, YES_NO_MINIMUM, Read, read_batch
from illume_loop.assess.teacher import Teacher
from illume_loop.errors import UsageError
from illume_loop.hooks import OnProgress, ignore
from illume_loop.protocols import Domain, Prompt, Sampling, UnifiedModel

BATCH = 256
"""Images drawn or read together, unless the caller says otherwise."""
OnItems = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Shown:
    """An image that was drawn for a prompt."""

    prompt: Prompt
    image: Image.Image


@dataclass(frozen=True, slots=True)
class Label:
    """Whether an image shows its prompt, and the answer to each of the prompt's questions; None is not known."""

    right: bool | None
    answers: Sequence[bool | None]


Labeller = Callable[[Sequence[Shown]], list[Label]]


def draw_set(
    model: UnifiedModel,
    domain: Domain,
    *,
    num_prompts: int,
    samples_per_prompt: int,
    seed: int,
    guidance_scale: float,
    batch_size: int = BATCH,
    on_items: OnItems = lambda *_: None,
) -> list[Shown]:
    """Images by the model itself for prompts of the train split. Raises UsageError for more prompts than it has."""
    prompts = [p for p in domain.prompts("train", num_prompts, seed) for _ in range(samples_per_prompt)]
    seeds = [int(value) for value in np.random.SeedSequence(seed).generate_state(len(prompts), np.uint64) >> 1]
    sampling = Sampling(guidance_scale=guidance_scale)
    shown: list[Shown] = []
    for start in range(0, len(prompts), batch_size):
        chunk = slice(start, start + batch_size)
        images = model.decode(model.sample([p.text for p in prompts[chunk]], seeds[chunk], sampling))
        shown += [Shown(prompt, image) for prompt, image in zip(prompts[chunk], images, strict=True)]
        on_items(len(shown), len(prompts))
    return shown


def checker_labels(domain: Domain, on_progress: OnProgress = ignore) -> Labeller:
    """Labels by the domain's exact checker; `on_progress` is called after each image."""

    def label(shown: Sequence[Shown]) -> list[Label]:
        labels = []
        for one in shown:
            passed = domain.check(one.image, one.prompt).passed
            labels.append(Label(passed, domain.answers(one.image, one.prompt)))
            on_progress()
        return labels

    return label


def teacher_labels(domain: Domain, teacher: Teacher) -> Labeller:
    """Labels by a teacher: an image is right when all questions about it are answered with yes."""

    def label(shown: Sequence[Shown]) -> list[Label]:
        asked = [[question.text for question in domain.questions(one.prompt)] for one in shown]
        answers = teacher.ask([one.image for one in shown], asked)
        return [Label(all_of(answered), answered) for answered in answers]

    return label


def all_of(answers: Sequence[bool | None]) -> bool | None:
    """Whether all are yes: one no decides; otherwise nothing is known where an answer is missing, or all of them."""
    if False in answers:
        return False
    return None if None in answers or not answers else True


def read_set(
    model: UnifiedModel,
    domain: Domain,
    shown: Sequence[Shown],
    on_items: OnItems = lambda *_: None,
    batch_size: int = BATCH,
) -> list[Read]:
    """Every reading of the judge. A model that was never taught questions gives those of likelihood alone."""
    reads: list[Read] = []
    for start in range(0, len(shown), batch_size):
        reads += _read_batch(model, domain, shown[start : start + batch_size])
        on_items(len(reads), len(shown))
    return reads


def calibrate(
    source: Source, domain: Domain, shown: Sequence[Shown], reads: Sequence[Read], labels: Sequence[Label]
) -> Calibration:
    """Fit a calibration; the source's counts are those of what had labels. Raises TooFewLabelsError."""
    overall: list[Labelled] = []
    criteria: dict[str, list[Labelled]] = {}
    for one, read, label in zip(shown, reads, labels, strict=True):
        if label.right is not None:
            overall.append(Labelled(one.prompt.key, read.readings, label.right))
        # People may say yes or no of the whole alone, and a model without questions has no log-odds.
        if len(label.answers) == len(read.log_odds):
            questions = domain.questions(one.prompt)
            for question, log_odds, answer in zip(questions, read.log_odds, label.answers, strict=True):
                if answer is not None:
                    row = Labelled(one.prompt.key, {LOG_ODDS: float(log_odds)}, answer)
                    criteria.setdefault(question.criterion, []).append(row)
    counts = {"num_prompts": len({row.group for row in overall}), "num_samples": len(overall)}
    # Where some prompts have no questions, those readings are left that every image has.
    readings = sorted(set.intersection(*(set(row.readings) for row in overall))) if overall else []
    return fit_calibration(source.model_copy(update=counts), overall, dict(sorted(criteria.items())), readings)


def _read_batch(model: UnifiedModel, domain: Domain, shown: Sequence[Shown]) -> list[Read]:
    images, texts = [one.image for one in shown], [one.prompt.text for one in shown]
    asked = [[question.text for question in domain.questions(one.prompt)] for one in shown]
    of_prompt = {LIKELIHOOD, INFORMATION}
    try:
        return read_batch(model, images, texts, asked, of_prompt | {YES_NO, YES_NO_MINIMUM})
    except UsageError:
        return read_batch(model, images, texts, asked, of_prompt)
