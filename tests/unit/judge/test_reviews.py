"""What a review may say, and which answers follow from it."""

from __future__ import annotations

import pytest

from illume_loop.errors import UsageError
from illume_loop.judge.reviews import criteria_in, review_label
from illume_loop.protocols import Question

QUESTIONS = [Question("object", "1"), Question("color", "2"), Question("color", "3"), Question("count", "4")]


def test_criteria_are_read() -> None:
    assert criteria_in(["color=disagree", "count=agree"], QUESTIONS, agrees=False) == {"color": False, "count": True}
    assert criteria_in([], QUESTIONS, agrees=True) == {}


@pytest.mark.parametrize(
    ("decided", "agrees", "reason"),
    [
        (["color"], False, "write for example color=disagree"),
        (["color=maybe"], False, "cannot read the criterion 'color=maybe'"),
        (["position=agree"], False, "does not ask about 'position'; its criteria are object, color, count"),
        (["color=agree", "color=disagree"], False, "decided twice"),
        (["color=disagree"], True, "give --disagree"),
    ],
)
def test_what_makes_no_sense_is_refused(decided: list[str], agrees: bool, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        criteria_in(decided, QUESTIONS, agrees=agrees)


@pytest.mark.parametrize(
    ("agrees", "criteria", "answers"),
    [
        (True, {}, [True, True, True, True]),
        (False, {}, [None, None, None, None]),
        (False, {"count": False, "object": True}, [True, None, None, False]),
        (False, {"color": False}, [None, None, None, None]),
        (False, {"color": True}, [None, True, True, None]),
    ],
)
def test_labels_say_no_more_than_the_review(
    agrees: bool, criteria: dict[str, bool], answers: list[bool | None]
) -> None:
    label = review_label(agrees, criteria, QUESTIONS)
    assert label.right is agrees
    assert label.answers == answers
