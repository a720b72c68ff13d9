"""The assessor `human`: the content of a review, the order in which samples are shown, and the agreement of people."""

from __future__ import annotations

import getpass
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from illume_db.review_queue import Unreviewed
from illume_db.reviews import ReviewRow
from illume_loop.errors import TooFewLabelsError, UsageError
from illume_loop.judge.calibration import Fit, probability_of
from illume_loop.judge.fitting import Label, Labelled, fit
from illume_loop.protocols import Question

MOST_NAME = 64

WORDS = {"agree": True, "disagree": False}


def reviewer_name(given: str | None) -> str:
    """Return the name under which a review is kept: the one given, or that of this system's user.

    Raises UsageError if the name is empty, too long or not printable.
    """
    try:
        name = (getpass.getuser() if given is None else given).strip()
    except (KeyError, OSError):
        name = "somebody"
    if not 0 < len(name) <= MOST_NAME or not name.isprintable():
        raise UsageError(f"a reviewer's name has 1 to {MOST_NAME} printable characters")
    return name


def criteria_in(decided: Iterable[str], questions: Sequence[Question], *, agrees: bool) -> dict[str, bool]:
    """Parse criteria as people write them ("color=disagree"), for the questions of a prompt.

    Raises UsageError if a criterion cannot be read, is decided twice, or is not asked for by the prompt, and if an
    image agrees as a whole but lacks a criterion.
    """
    known = list(dict.fromkeys(question.criterion for question in questions))
    criteria: dict[str, bool] = {}
    for text in decided:
        name, _, word = text.partition("=")
        if word not in WORDS:
            raise UsageError(f"cannot read the criterion '{text}'; write for example color=disagree")
        if name not in known:
            raise UsageError(f"the prompt does not ask about '{name}'; its criteria are {', '.join(known) or 'none'}")
        if name in criteria:
            raise UsageError(f"the criterion '{name}' is decided twice; leave one of them out")
        criteria[name] = WORDS[word]
    if agrees and not all(criteria.values()):
        raise UsageError("an image that agrees with its prompt lacks no criterion; give --disagree")
    return criteria


def review_label(agrees: bool, criteria: Mapping[str, bool], questions: Sequence[Question]) -> Label:
    """Return the label that a review gives to an image, with the answers that follow from it."""
    names = [question.criterion for question in questions]

    def answer(name: str) -> bool | None:
        if agrees or criteria.get(name):
            return True
        return False if name in criteria and names.count(name) == 1 else None

    return Label(agrees, [answer(name) for name in names])


TURNS = ("overlap", "boundary", "boundary", "random", "boundary")
"""The purposes of a person's reviews, in turn."""

DIFFER = 0.5
"""The difference of probabilities from which assessors disagree: one says more likely than not, another clearly not."""


@dataclass(frozen=True, slots=True)
class NextSample:
    """The next sample with the reason why it is shown."""

    sample_id: int
    reason: str


def next_review(window: Sequence[Unreviewed], judge: str, num_done: int, seed: int) -> NextSample | None:
    """Return the next sample for a person who has dealt with `num_done` samples; None if nothing is left.

    The decision boundary is that of the assessor `judge`. A random choice follows from `seed` and the samples alone.
    """
    if not window:
        return None
    turn = TURNS[num_done % len(TURNS)]
    shared = [one for one in window if one.num_reviews]
    if turn == "overlap" and shared:
        return NextSample(min(shared, key=lambda one: (one.num_reviews, _draw(seed, one))).sample_id, "overlap")
    if turn == "random":
        return NextSample(min(window, key=lambda one: _draw(seed, one)).sample_id, "random")
    # Samples that others have dealt with come in their own turn, `overlap`, so that many people cover more together.
    fresh = [one for one in window if not one.num_reviews] or list(window)
    judged = probabilities(fresh, judge)
    spread = {one.sample_id: _spread(one, judged.get(one.sample_id), judge) for one in fresh}
    most = max(fresh, key=lambda one: (spread[one.sample_id], -one.sample_id))
    if spread[most.sample_id] >= DIFFER:
        return NextSample(most.sample_id, "disagreement")
    nearest = min(fresh, key=lambda one: (abs(judged.get(one.sample_id, math.inf) - 0.5), one.sample_id))
    return NextSample(nearest.sample_id, "boundary")


def probabilities(window: Sequence[Unreviewed], assessor: str) -> dict[int, float]:
    """Return an assessor's probability that a sample is right, by sample id.

    The value is the calibrated probability if there is one, else it is made of the log-odds of the questions. Other
    scores, such as likelihoods, only have an order. For them it is the share of the window that scores lower, so the
    boundary is the median.
    """
    ranked = sorted(one.scores[assessor] for one in window if assessor in one.scores)
    found = {}
    for one in window:
        if assessor in one.probabilities:
            found[one.sample_id] = one.probabilities[assessor]
        elif assessor in one.yes_no:
            found[one.sample_id] = probability_of(one.yes_no[assessor])
        elif assessor in one.scores:
            found[one.sample_id] = (bisect_left(ranked, one.scores[assessor]) + 0.5) / len(ranked)
    return found


def _spread(one: Unreviewed, judged: float | None, judge: str) -> float:
    """Return how far apart the assessors' probabilities for a sample lie."""
    told = [] if judged is None else [judged]
    for name in one.scores.keys() | one.probabilities.keys():
        if name == judge:
            continue
        if name in ("checker", "teacher"):
            told.append(one.scores[name])
        elif name in one.probabilities:
            told.append(one.probabilities[name])
        elif name in one.yes_no:
            told.append(probability_of(one.yes_no[name]))
    return max(told) - min(told) if told else 0.0


def _draw(seed: int, one: Unreviewed) -> float:
    return Random(f"review/{seed}/{one.sample_id}").random()


WHAT = "the judge against people"


def fit_on_reviews(rows: Sequence[ReviewRow]) -> Fit:
    """Fit a calibration of the whole answer on the samples on which people agree with each other.

    Raises TooFewLabelsError.
    """
    usable = []
    for row in rows:
        finite = {name: value for name, value in row.readings.items() if value is not None and math.isfinite(value)}
        if row.agrees is not None and finite:
            usable.append(Labelled(row.prompt.key, finite, row.agrees))
    names = sorted(set.intersection(*(set(row.readings) for row in usable))) if usable else []
    if not names:
        raise TooFewLabelsError(what=WHAT, reason="no reviewed sample has readings of the judge")
    return fit(usable, names, WHAT)


def cohens_kappa(verdicts: Sequence[tuple[bool, bool]]) -> float | None:
    """Return the agreement of two people beyond chance (Cohen 1960); None if chance alone makes them always agree."""
    n = len(verdicts)
    if n == 0:
        return None
    agreed = sum(first is second for first, second in verdicts) / n
    first_yes, second_yes = (sum(pair[place] for pair in verdicts) / n for place in (0, 1))
    by_chance = first_yes * second_yes + (1 - first_yes) * (1 - second_yes)
    return None if by_chance == 1.0 else (agreed - by_chance) / (1 - by_chance)
