"""The fit of a calibration: draw and read a labelled set, then regress from readings to labels.

The labelled set has images of train prompts, the judge's readings of them, and the labels. The fit is a logistic
regression. Its reliability is measured on prompts that it was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from illume_loop.errors import TooFewLabelsError, UsageError
from illume_loop.evals.reliability import reliability
from illume_loop.hooks import OnProgress, ignore
from illume_loop.judge.calibration import LOG_ODDS, Calibration, Fit, Logistic, Source
from illume_loop.judge.readings import INFORMATION, LIKELIHOOD, YES_NO, YES_NO_MINIMUM, Read, read_batch
from illume_loop.judge.teacher import Teacher
from illume_loop.protocols import Domain, Prompt, Sampling, UnifiedModel

BATCH = 256
"""The default number of images that are drawn or read together."""

OnItems = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """An image that was drawn for a prompt."""

    prompt: Prompt
    image: Image.Image


@dataclass(frozen=True, slots=True)
class Label:
    """The label of an image: if it shows its prompt, and the answer to each of the prompt's questions.

    None stands for unknown.
    """

    right: bool | None
    answers: Sequence[bool | None]


Labeller = Callable[[Sequence[DrawnImage]], list[Label]]


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
) -> list[DrawnImage]:
    """Draw images with the model itself for prompts of the train split.

    Raises UsageError if the split has fewer than `num_prompts` prompts.
    """
    prompts = [p for p in domain.prompts("train", num_prompts, seed) for _ in range(samples_per_prompt)]
    seeds = [int(value) for value in np.random.SeedSequence(seed).generate_state(len(prompts), np.uint64) >> 1]
    sampling = Sampling(guidance_scale=guidance_scale)
    shown: list[DrawnImage] = []
    for start in range(0, len(prompts), batch_size):
        chunk = slice(start, start + batch_size)
        images = model.decode(model.sample([p.text for p in prompts[chunk]], seeds[chunk], sampling))
        shown += [DrawnImage(prompt, image) for prompt, image in zip(prompts[chunk], images, strict=True)]
        on_items(len(shown), len(prompts))
    return shown


def checker_labels(domain: Domain, on_progress: OnProgress = ignore) -> Labeller:
    """Return a labeller by the domain's exact checker; it calls `on_progress` after each image."""

    def label(shown: Sequence[DrawnImage]) -> list[Label]:
        labels = []
        for one in shown:
            passed = domain.check(one.image, one.prompt).passed
            labels.append(Label(passed, domain.answers(one.image, one.prompt)))
            on_progress()
        return labels

    return label


def teacher_labels(domain: Domain, teacher: Teacher) -> Labeller:
    """Return a labeller by a teacher; an image is right if all questions about it are answered with yes."""

    def label(shown: Sequence[DrawnImage]) -> list[Label]:
        asked = [[question.text for question in domain.questions(one.prompt)] for one in shown]
        answers = teacher.ask([one.image for one in shown], asked)
        return [Label(all_of(answered), answered) for answered in answers]

    return label


def all_of(answers: Sequence[bool | None]) -> bool | None:
    """Return False if one answer is no, and True if all answers are yes.

    Returns None if no answer is no and one is missing, or if there are no answers.
    """
    if False in answers:
        return False
    return None if None in answers or not answers else True


def read_set(
    model: UnifiedModel,
    domain: Domain,
    shown: Sequence[DrawnImage],
    on_items: OnItems = lambda *_: None,
    batch_size: int = BATCH,
) -> list[Read]:
    """Return every reading of the judge for each image.

    A model that was never taught questions gives only the readings of likelihood.
    """
    reads: list[Read] = []
    for start in range(0, len(shown), batch_size):
        reads += _read_batch(model, domain, shown[start : start + batch_size])
        on_items(len(reads), len(shown))
    return reads


def calibrate(
    source: Source, domain: Domain, shown: Sequence[DrawnImage], reads: Sequence[Read], labels: Sequence[Label]
) -> Calibration:
    """Fit a calibration; the source gets the counts of what had labels. Raises TooFewLabelsError."""
    overall: list[Labelled] = []
    criteria: dict[str, list[Labelled]] = {}
    for one, read, label in zip(shown, reads, labels, strict=True):
        if label.right is not None:
            overall.append(Labelled(one.prompt.key, read.readings, label.right))
        # People may judge the whole image alone, and a model without questions has no log-odds. Then nothing is paired.
        if len(label.answers) == len(read.log_odds):
            questions = domain.questions(one.prompt)
            for question, log_odds, answer in zip(questions, read.log_odds, label.answers, strict=True):
                if answer is not None:
                    row = Labelled(one.prompt.key, {LOG_ODDS: float(log_odds)}, answer)
                    criteria.setdefault(question.criterion, []).append(row)
    counts = {"num_prompts": len({row.group for row in overall}), "num_samples": len(overall)}
    # Images of prompts without questions lack some readings, so the fit uses only those that every image has.
    readings = sorted(set.intersection(*(set(row.readings) for row in overall))) if overall else []
    return fit_calibration(source.model_copy(update=counts), overall, dict(sorted(criteria.items())), readings)


def _read_batch(model: UnifiedModel, domain: Domain, shown: Sequence[DrawnImage]) -> list[Read]:
    images, texts = [one.image for one in shown], [one.prompt.text for one in shown]
    asked = [[question.text for question in domain.questions(one.prompt)] for one in shown]
    of_prompt = {LIKELIHOOD, INFORMATION}
    try:
        return read_batch(model, images, texts, asked, of_prompt | {YES_NO, YES_NO_MINIMUM})
    except UsageError:
        return read_batch(model, images, texts, asked, of_prompt)


NUM_FOLDS = 5

LEAST_OF_A_KIND = 10
"""The fewest right and the fewest wrong labels that a fit needs; with fewer, the reliability would be noise."""

STRENGTH = 10.0
"""The inverse of the L2 penalty on coefficients of standardised readings. The penalty is next to nothing if there are
enough labels. It keeps the coefficients finite if a reading separates the labels perfectly."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """The readings of one answer with its label; `group` is the key of its prompt."""

    group: str
    readings: Mapping[str, float]
    label: bool


def fit_calibration(
    source: Source,
    overall: Sequence[Labelled],
    criteria: Mapping[str, Sequence[Labelled]],
    readings: Sequence[str],
) -> Calibration:
    """Fit the whole answer on `readings`, and each criterion on the log-odds of its questions.

    A criterion with too few labels is left out, and the calibration says so. Raises TooFewLabelsError if the whole
    answer has too few.
    """
    fits: dict[str, Fit] = {}
    unfitted: dict[str, str] = {}
    for name, rows in criteria.items():
        try:
            fits[name] = fit(rows, (LOG_ODDS,), name, source.seed)
        except TooFewLabelsError as error:
            unfitted[name] = str(error)
    return Calibration(
        source=source, overall=fit(overall, readings, "the whole answer", source.seed), criteria=fits, unfitted=unfitted
    )


def fit(rows: Sequence[Labelled], readings: Sequence[str], what: str, seed: int = 0) -> Fit:
    """Fit one map and measure its reliability. Raises TooFewLabelsError, which names `what`."""
    labels = np.array([row.label for row in rows], dtype=bool)
    groups = np.array([row.group for row in rows])
    _check_labels(labels, groups, what)
    values_NR = np.array([[row.readings[name] for name in readings] for row in rows], dtype=np.float64)
    said = np.empty(len(rows))
    for train, test in _folds(labels, groups, seed):
        if len(set(labels[train])) < 2:
            raise TooFewLabelsError(what=what, reason="all of one kind are of the same few prompts")
        coefficients, intercept = _logistic(values_NR[train], labels[train])
        said[test] = 1 / (1 + np.exp(-(values_NR[test] @ coefficients + intercept)))
    coefficients, intercept = _logistic(values_NR, labels)
    return Fit(
        logistic=Logistic(readings=tuple(readings), coefficients=tuple(coefficients.tolist()), intercept=intercept),
        reliability=reliability(said.tolist(), labels.tolist()),
    )


def _check_labels(labels: NDArray[np.bool_], groups: NDArray[np.str_], what: str) -> None:
    num_true = int(labels.sum())
    num_false = len(labels) - num_true
    if min(num_true, num_false) < LEAST_OF_A_KIND:
        reason = f"{num_true} right and {num_false} wrong, and {LEAST_OF_A_KIND} of either kind are needed"
        raise TooFewLabelsError(what=what, reason=reason)
    if len(set(groups.tolist())) < NUM_FOLDS:
        raise TooFewLabelsError(what=what, reason=f"they are of fewer than {NUM_FOLDS} prompts")


def _folds(
    labels: NDArray[np.bool_], groups: NDArray[np.str_], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import StratifiedGroupKFold

    splitter = StratifiedGroupKFold(NUM_FOLDS, shuffle=True, random_state=seed % 2**32)
    return list(splitter.split(np.zeros(len(labels)), labels, groups))


def _logistic(values_NR: Floats, labels: NDArray[np.bool_]) -> tuple[Floats, float]:
    """Return coefficients and intercept for readings as they are; they are standardised for the penalty only."""
    from sklearn.linear_model import LogisticRegression

    means, deviations = values_NR.mean(axis=0), values_NR.std(axis=0)
    deviations[deviations == 0] = 1.0
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit((values_NR - means) / deviations, labels)
    coefficients = np.asarray(model.coef_[0], dtype=np.float64) / deviations
    return coefficients, float(model.intercept_[0] - means @ coefficients)
