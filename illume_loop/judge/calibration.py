"""Calibrations: from a judge's readings of an image to the probability that the image is right.

A calibration is of one judge, the model that it was fitted with (fitting.py). Later versions of that model are judged
by it too, which makes their drift visible (agreement.py).

Invariants:
- A calibration is immutable. Its name is the sha256 of its content, which says what it was fitted on.
- Applying a calibration is a sum of products, so every host gets the same probability.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from illume_loop.errors import CalibrationFileError, ReadingMissingError
from illume_loop.evals.reliability import Reliability

Labels = Literal["checker", "human", "teacher"]

LOG_ODDS = "log-odds"
"""The only reading of a single question; the criteria are fitted on it."""


class _Strict(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Logistic(_Strict):
    """A logistic map: log-odds = intercept + sum of coefficient x reading.

    With one reading it is Platt's scaling (Platt 1999).
    """

    readings: tuple[str, ...]
    coefficients: tuple[float, ...]
    intercept: float

    @model_validator(mode="after")
    def _one_coefficient_each(self) -> Self:
        if len(self.readings) != len(self.coefficients) or not self.readings:
            raise ValueError("there must be one coefficient for each reading")
        return self

    def log_odds(self, readings: Mapping[str, float]) -> float:
        """Return the calibrated log-odds that the image or the answer is right. Raises ReadingMissingError."""
        for name in self.readings:
            if name not in readings:
                raise ReadingMissingError(name=name)
        pairs = zip(self.coefficients, self.readings, strict=True)
        return self.intercept + math.fsum(coefficient * readings[name] for coefficient, name in pairs)

    def probability(self, readings: Mapping[str, float]) -> float:
        """Return `log_odds` as a probability. Raises ReadingMissingError."""
        return probability_of(self.log_odds(readings))


class Fit(_Strict):
    """A fitted map, and its reliability on prompts that it was not fitted on (cross-fitted by prompt)."""

    logistic: Logistic
    reliability: Reliability


class Source(_Strict):
    """The judge, the domain, the labels and the settings that a calibration was fitted with.

    `judge` is the sha256 of the judging model's checkpoint. `num_prompts` and `num_samples` count what had labels.
    """

    judge: str
    domain: str
    labels: Labels
    seed: int
    guidance_scale: float
    num_prompts: int = 0
    num_samples: int = 0


class Calibration(_Strict):
    """The fits of the whole answer and of each criterion that had enough labels."""

    format: Literal[1] = 1
    source: Source
    overall: Fit
    criteria: dict[str, Fit]
    unfitted: dict[str, str]
    """The criteria without a fit, each with the reason."""

    @property
    def sha256(self) -> str:
        """The name of the calibration: the sha256 of its canonical content."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def canonical(self) -> bytes:
        """Return the content as it is hashed and written."""
        return (json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1) + "\n").encode()

    def probability(self, readings: Mapping[str, float]) -> float:
        """Return the probability that the image is right, from readings by name. Raises ReadingMissingError."""
        return self.overall.logistic.probability(readings)

    def criterion_probability(self, criterion: str, log_odds: float) -> float | None:
        """Return the probability that the answer to a criterion's question is yes; None if the criterion has no fit."""
        fit = self.criteria.get(criterion)
        return None if fit is None else fit.logistic.probability({LOG_ODDS: log_odds})


def probability_of(log_odds: float) -> float:
    """Return the logistic function of log-odds, without overflow."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


def abstains(probability: float, band: float) -> bool:
    """Return True if the judge abstains: the probability is less than `band` away from a half."""
    return abs(probability - 0.5) < band


def calibration_of(content: str | bytes | Mapping[str, object], name: object) -> Calibration:
    """Return the calibration that JSON content holds. Raises CalibrationFileError, which calls it `name`."""
    try:
        if isinstance(content, Mapping):
            return Calibration.model_validate_json(json.dumps(content))
        return Calibration.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        raise CalibrationFileError(path=name, reason=f"{place}: {first['msg']}" if place else first["msg"]) from None


def read_calibration(path: Path) -> Calibration:
    """Return the calibration in a file. Raises CalibrationFileError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CalibrationFileError(path=path, reason=error.strerror or str(error)) from None
    return calibration_of(content, path)
