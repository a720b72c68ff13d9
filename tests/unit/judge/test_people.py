"""The judge against people, people against each other, and the judge's mistakes by criterion."""

from __future__ import annotations

import pytest

from illume_db.judging import JudgedSample
from illume_db.prompts import PromptRow
from illume_db.reviews import ReviewRow
from illume_loop.errors import TooFewLabelsError
from illume_loop.judge.agreement import WHOLE, confusions
from illume_loop.judge.reviews import cohens_kappa, fit_on_reviews


def _review(number: int, agrees: bool | None, reading: float | None) -> ReviewRow:
    prompt = PromptRow("train", f"k{number % 8}", "c", "t", {})
    readings = {} if reading is None else {"yes-no": reading, "broken": None if number else 1.0}
    return ReviewRow(number, 1, prompt, "0", agrees, {}, "", None, readings, [])


def test_kappa_is_that_of_the_literature_and_none_where_chance_decides() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, by chance 0.5."""
    pairs = [(True, True)] * 20 + [(True, False)] * 5 + [(False, True)] * 10 + [(False, False)] * 15
    assert cohens_kappa(pairs) == pytest.approx(0.4)
    assert cohens_kappa([(True, True)] * 9) is None
    assert cohens_kappa([]) is None
    assert cohens_kappa([(True, False), (False, True)]) == pytest.approx(-1.0)


def test_the_judge_is_calibrated_on_what_people_say_alike() -> None:
    rows = [_review(number, number % 2 == 0, 2.0 if number % 2 == 0 else -2.0) for number in range(40)]
    differing = [_review(41, None, 5.0), _review(42, True, None)]
    fit = fit_on_reviews(rows + differing)
    assert (fit.reliability.n, fit.reliability.auc) == (40, 1.0)
    assert fit.logistic.readings == ("yes-no",)
    with pytest.raises(TooFewLabelsError, match="the judge against people"):
        fit_on_reviews(rows[:4])
    with pytest.raises(TooFewLabelsError):
        fit_on_reviews([])


def test_mistakes_are_counted_by_criterion_and_people_count_before_the_checker() -> None:
    questions = [
        {"criterion": "color", "question": "red ?", "log_odds": 1.0},
        {"criterion": "count", "question": "two ?", "log_odds": -1.0},
    ]
    judged = [
        JudgedSample(questions, 0.9, ["color"], {}),
        JudgedSample(questions, 0.2, ["count"], {"color": False}),
        JudgedSample(questions, None, None, {}),
        JudgedSample([questions[0], questions[0]], None, ["color"], {}),
        JudgedSample([{**questions[0], "log_odds": None}], None, [], {}),
        JudgedSample([questions[1]], None, [], {}),
    ]
    found = confusions(judged)
    assert list(found) == [WHOLE, "color", "count"]
    color = found["color"]
    assert (color.true_yes, color.false_yes, color.true_no, color.false_no) == (0, 2, 0, 0)
    assert (found["count"].true_no, found["count"].false_no) == (1, 1)
    assert (found[WHOLE].false_yes, found[WHOLE].true_no) == (1, 1)
    assert found["count"].share_right == 0.5
