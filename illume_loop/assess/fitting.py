"""Fitting a calibration: logistic regression from readings to labels, measured on prompts it was not fitted on.

Guarantee: the reliability that is reported is out of sample. Labels are split by prompt, so that no image of a prompt
helps to judge another one of it; the map that is kept is fitted on all of them. The same labels in the same order give
the same calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from illume_loop.assess.calibration import LOG_ODDS, Calibration, Fit, Logistic, Source
from illume_loop.errors import TooFewLabelsError
from illume_loop.evals.reliability import reliability

NUM_FOLDS = 5
LEAST_OF_A_KIND = 10
"""Labels of either kind below which nothing is fitted: the reliability would be noise."""
STRENGTH = 10.0
"""Inverse of the L2 penalty on coefficients of standardised readings: next to nothing where there are labels enough,
and keeps the coefficients finite where a reading parts the labels perfectly."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answer with its label; `group` is its prompt."""

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

    A criterion with too few labels is left out, and the calibration says so. Raises TooFewLabelsError where the whole
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
    """Fit one map. Raises TooFewLabelsError, which says of `what`."""
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
    """Coefficients and intercept for readings as they are; they are standardised for the penalty only."""
    from sklearn.linear_model import LogisticRegression

    means, deviations = values_NR.mean(axis=0), values_NR.std(axis=0)
    deviations[deviations == 0] = 1.0
    model = LogisticRegression(C=STRENGTH, max_iter=1000).fit((values_NR - means) / deviations, labels)
    coefficients = np.asarray(model.coef_[0], dtype=np.float64) / deviations
    return coefficients, float(model.intercept_[0] - means @ coefficients)
