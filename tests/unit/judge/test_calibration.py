"""A calibration finds the probabilities that labels were drawn from, says how well, and survives its file."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from illume_loop.errors import CalibrationFileError, ReadingMissingError, TooFewLabelsError
from illume_loop.judge.calibration import (
    LOG_ODDS,
    Calibration,
    Logistic,
    Source,
    abstains,
    calibration_of,
    probability_of,
    read_calibration,
)
from illume_loop.judge.fitting import Labelled, fit, fit_calibration

SOURCE = Source(
    judge="0" * 64, domain="shapes", labels="checker", num_prompts=100, num_samples=800, seed=0, guidance_scale=1.0
)


def _labelled(count: int, *, seed: int = 0, slope: float = 2.0, offset: float = -1.0) -> list[Labelled]:
    """Labels with log-odds offset + slope * reading; eight images of each prompt; a second reading is noise."""
    generator = np.random.default_rng(seed)
    readings, noise = generator.normal(size=count), generator.normal(size=count) * 50
    labels = generator.random(count) < 1 / (1 + np.exp(-(offset + slope * readings)))
    return [
        Labelled(f"prompt {index // 8}", {LOG_ODDS: float(x), "noise": float(z)}, bool(label))
        for index, (x, z, label) in enumerate(zip(readings, noise, labels, strict=True))
    ]


def _calibration(rows: list[Labelled] | None = None) -> Calibration:
    rows = rows or _labelled(800)
    return fit_calibration(SOURCE, rows, {"color": rows, "position": rows[:12]}, (LOG_ODDS, "noise"))


def test_the_true_map_is_found_whatever_the_scale_of_readings() -> None:
    found = fit(_labelled(20_000), (LOG_ODDS, "noise"), "all").logistic
    assert found.coefficients[0] == pytest.approx(2.0, abs=0.1)
    assert found.coefficients[1] == pytest.approx(0.0, abs=0.002)
    assert found.intercept == pytest.approx(-1.0, abs=0.1)


def test_it_is_calibrated_on_what_it_was_not_fitted_on() -> None:
    found = fit(_labelled(4000), (LOG_ODDS,), "all")
    fresh = _labelled(4000, seed=1)
    said = [found.logistic.probability(row.readings) for row in fresh]
    from illume_loop.evals.reliability import reliability

    out_of_sample = reliability(said, [row.label for row in fresh])
    assert out_of_sample.ece < 0.03
    assert found.reliability.auc == pytest.approx(out_of_sample.auc, abs=0.02)
    assert found.reliability.brier == pytest.approx(out_of_sample.brier, abs=0.01)
    assert found.reliability.n == 4000


def test_what_only_tells_prompts_apart_earns_nothing() -> None:
    """Labels that hang on the prompt alone, told by a reading that is the prompt's own number: memory is no skill."""
    generator = np.random.default_rng(0)
    luck = generator.random(60) < 0.5
    code = generator.normal(size=60)
    rows = [Labelled(f"{p}", {LOG_ODDS: float(code[p])}, bool(luck[p])) for p in range(60) for _ in range(20)]
    found = fit(rows, (LOG_ODDS,), "all").reliability.auc
    assert found is not None
    assert found < 0.65


def test_a_perfect_reading_keeps_finite_coefficients() -> None:
    rows = [Labelled(f"{i % 10}", {LOG_ODDS: 5.0 if i % 2 else -5.0}, bool(i % 2)) for i in range(100)]
    found = fit(rows, (LOG_ODDS,), "all")
    assert found.reliability.auc == 1.0
    assert 0.9 < found.logistic.probability({LOG_ODDS: 5.0}) < 1.0


def test_a_reading_that_never_changes_is_harmless() -> None:
    rows = [Labelled(row.group, {LOG_ODDS: row.readings[LOG_ODDS], "same": 3.0}, row.label) for row in _labelled(800)]
    alone = fit(rows, (LOG_ODDS,), "all")
    both = fit(rows, (LOG_ODDS, "same"), "all")
    assert both.reliability.auc == pytest.approx(alone.reliability.auc)


def test_the_same_labels_give_the_same_calibration() -> None:
    assert _calibration().sha256 == _calibration().sha256
    assert _calibration(_labelled(800, seed=1)).sha256 != _calibration().sha256


def test_criteria_with_few_labels_are_left_out_and_it_says_so() -> None:
    calibration = _calibration()
    assert list(calibration.criteria) == ["color"]
    assert "10 of either kind are needed" in calibration.unfitted["position"]
    assert calibration.criterion_probability("position", 3.0) is None
    sure = calibration.criterion_probability("color", 3.0)
    assert sure is not None
    assert sure > 0.9


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "0 right and 0 wrong"),
        ([Labelled("p", {LOG_ODDS: 1.0}, True)] * 50, "50 right and 0 wrong"),
        ([Labelled("p", {LOG_ODDS: 1.0}, bool(i % 2)) for i in range(50)], "fewer than 5 prompts"),
        (
            [Labelled(f"{i % 9}", {LOG_ODDS: 1.0}, i % 9 == 0) for i in range(180)],
            "same few prompts",
        ),
    ],
)
def test_too_few_labels_are_refused(rows: list[Labelled], reason: str) -> None:
    with pytest.raises(TooFewLabelsError, match=reason):
        fit(rows, (LOG_ODDS,), "the whole answer")


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    calibration = _calibration()
    path = tmp_path / "calibration.json"
    path.write_bytes(calibration.canonical())
    assert read_calibration(path) == calibration
    assert calibration_of(json.loads(path.read_bytes()), "stored").sha256 == calibration.sha256


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "format"),
        ({"surprise": 1}, "surprise"),
        ({"overall": {}}, "overall.logistic"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(json.loads(_calibration().canonical()) | change))
    with pytest.raises(CalibrationFileError, match=reason):
        read_calibration(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationFileError, match="as a calibration"):
        read_calibration(path)
    with pytest.raises(CalibrationFileError, match="No such file"):
        read_calibration(tmp_path / "none.json")


def test_a_map_with_a_coefficient_too_few_is_refused() -> None:
    with pytest.raises(ValueError, match="one coefficient for each reading"):
        Logistic(readings=("a", "b"), coefficients=(1.0,), intercept=0.0)


def test_a_reading_that_the_judge_lacks_is_told() -> None:
    with pytest.raises(ReadingMissingError, match="'noise'"):
        _calibration().probability({LOG_ODDS: 1.0})


def test_probabilities_do_not_overflow() -> None:
    assert probability_of(0.0) == 0.5
    assert probability_of(1e9) == 1.0
    assert probability_of(-1e9) == 0.0
    assert probability_of(-2.0) == pytest.approx(1 / (1 + math.exp(2.0)))


@pytest.mark.parametrize(
    ("probability", "band", "silent"),
    [(0.5, 0.0, False), (0.5, 0.1, True), (0.59, 0.1, True), (0.61, 0.1, False), (0.39, 0.1, False)],
)
def test_abstention(probability: float, band: float, silent: bool) -> None:
    assert abstains(probability, band) is silent
