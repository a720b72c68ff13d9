"""The gate promotes what is better by more than noise, and says why it does not."""

from __future__ import annotations

import pytest

from illume_loop.config import GateSettings
from illume_loop.loop.gate import Measured, judge

SETTINGS = GateSettings(confidence=0.95, resamples=2000, min_gain=0.0, understanding_margin=0.02, diversity_ratio=0.8)
WEAK = [True] * 100 + [False] * 100
STRONG = [True] * 130 + [False] * 70


def _measured(heldout: list[bool], understanding: float = 0.9, diversity: float = 0.6) -> Measured:
    return Measured(heldout, understanding, diversity)


def test_a_clear_gain_is_promoted_with_its_numbers() -> None:
    judgement = judge(_measured(WEAK), _measured(WEAK), _measured(STRONG), SETTINGS, 0)
    assert judgement.passed
    assert judgement.reasons[0].startswith("heldout gain +15.0 [")
    assert len(judgement.reasons) == 1
    heldout = judgement.numbers["heldout"]
    assert heldout["parent"]["mean"] == 0.5
    assert heldout["candidate"] == pytest.approx({"mean": 0.65, "low": 0.5817, "high": 0.7127, "n": 200}, abs=1e-4)
    assert heldout["delta"]["mean"] == pytest.approx(0.15)
    assert 0 < heldout["delta"]["low"] < 0.15 < heldout["delta"]["high"]
    assert judgement.numbers["diversity"] == {"parent": 0.6, "candidate": 0.6}


def test_no_difference_is_rejected() -> None:
    """A lower end of exactly 0 is not above 0."""
    judgement = judge(_measured(WEAK), _measured(WEAK), _measured(WEAK), SETTINGS, 0)
    assert not judgement.passed
    assert judgement.reasons == ["heldout gain +0.0 [0.0, 0.0]", "the lower end of the gain is not above 0.0"]


def test_a_gain_within_noise_is_rejected() -> None:
    swapped = [*WEAK[:90], *[False] * 10, *[True] * 14, *WEAK[114:]]
    judgement = judge(_measured(WEAK), _measured(WEAK), _measured(swapped), SETTINGS, 0)
    assert not judgement.passed
    assert judgement.reasons[0].startswith("heldout gain +2.0 [-")


def test_the_least_gain_is_a_setting() -> None:
    assert not judge(
        _measured(WEAK), _measured(WEAK), _measured(STRONG), SETTINGS.model_copy(update={"min_gain": 0.14}), 0
    ).passed


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (_measured(STRONG, understanding=0.87), "understanding fell from the base's 90.0 to 87.0, more than 2.0"),
        (_measured(STRONG, diversity=0.4), "diversity fell from the base's 0.60 to 0.40, below 0.80 of it"),
    ],
)
def test_a_guard_stops_a_gain(candidate: Measured, reason: str) -> None:
    judgement = judge(_measured(WEAK), _measured(WEAK), candidate, SETTINGS, 0)
    assert not judgement.passed
    assert judgement.reasons[1:] == [reason]


def test_guards_look_at_the_base_not_at_a_parent_that_lost_already() -> None:
    parent = _measured(WEAK, understanding=0.885, diversity=0.5)
    candidate = _measured(STRONG, understanding=0.87, diversity=0.45)
    judgement = judge(_measured(WEAK), parent, candidate, SETTINGS, 0)
    assert len(judgement.reasons) == 3
