"""How people and the judge agree: a calibration on what people say, and their agreement with each other. Pure.

The readings are those that were stored when the samples were judged, so no model is needed; `judge fit --labels human`
reads the images again with the run's base, and its calibration can be used by a run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from illume_db.reviews import ReviewRow
from illume_loop.assess.calibration import Fit
from illume_loop.assess.fitting import Labelled, fit
from illume_loop.errors import TooFewLabelsError

WHAT = "the judge against people"


def fit_on_reviews(rows: Sequence[ReviewRow]) -> Fit:
    """A calibration of the whole answer on the samples of which people say the same.

    Raises TooFewLabelsError.
    """
    usable = []
    for row in rows:
        finite = {name: value for name, value in row.readings.items() if value is not None and math.isfinite(value)}
        if row.agrees is not None and finite:
            usable.append(Labelled(row.key, finite, row.agrees))
    names = sorted(set.intersection(*(set(row.readings) for row in usable))) if usable else []
    if not names:
        raise TooFewLabelsError(what=WHAT, reason="no reviewed sample has readings of the judge")
    return fit(usable, names, WHAT)


def cohens_kappa(verdicts: Sequence[tuple[bool, bool]]) -> float | None:
    """Agreement of two people beyond chance (Cohen 1960); None where chance alone would have them always agree."""
    n = len(verdicts)
    if n == 0:
        return None
    agreed = sum(first is second for first, second in verdicts) / n
    first_yes, second_yes = (sum(pair[place] for pair in verdicts) / n for place in (0, 1))
    by_chance = first_yes * second_yes + (1 - first_yes) * (1 - second_yes)
    return None if by_chance == 1.0 else (agreed - by_chance) / (1 - by_chance)
