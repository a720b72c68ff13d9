"""One headline per version, and two versions compared by the largest comparison there is."""

from __future__ import annotations

from typing import Any

import pytest

from illume_db.versions import headline as largest
from illume_loop.charts.numbers import decode
from illume_loop.report.headline import (
    NOT_COMPARED,
    best_decode,
    closing,
    compared,
    comparison,
    differs_at_setting,
    guard,
    has_early_look,
    headline,
    last_closing,
    share_of,
)


def _one(round_: int, role: str, against: str, mean: float, n: int, gain: float = 0.1) -> dict[str, Any]:
    return {
        **{"mean": mean, "low": mean - 0.04, "high": mean + 0.03, "n": n, "round": round_, "role": role},
        **{"against": against, "gain": {"mean": gain, "low": gain - 0.02, "high": gain + 0.03}, "decision": "promoted"},
        **{"judge": "checker", "guidance_scale": 1.25, "temperature": 1.0, "top_k": 0, "top_p": 1.0},
        "at_setting": None,
    }


def test_the_headline_is_the_largest_comparison_and_of_equals_the_versions_own_gate() -> None:
    gate, later = _one(1, "candidate", "v0001", 0.47, 512), _one(2, "parent", "v0003", 0.45, 512)
    assert largest([gate, later]) == gate
    assert largest([gate | {"n": 256}, later]) == later
    assert largest([later, later | {"round": 3}]) == later | {"round": 3}
    assert largest([]) is None


def test_it_names_interval_draws_judge_and_decode() -> None:
    told = headline(_one(1, "candidate", "v0001", 0.47, 512))
    assert told == (
        "47.0 [43.0, 50.0] of 512 held-out draws right, in percent (checker, guidance 1.25, temperature 1; round 1, "
        "gain +10.0 [+8.0, +13.0] over v0001)"
    )
    assert headline(_one(2, "parent", "v0003", 0.45, 512)).endswith("round 2, as the parent of v0003)")
    assert headline(None) == NOT_COMPARED
    assert share_of(None) is None
    assert comparison(_one(1, "candidate", "v0001", 0.47, 512)).startswith("round 1: 47.0 [43.0, 50.0] of 512 (candid")


def test_a_decode_names_what_is_not_neutral() -> None:
    assert decode({"guidance_scale": 5.0, "temperature": 0.9, "top_k": 2048, "top_p": 0.95}) == (
        "guidance 5, temperature 0.9, top-k 2048, top-p 0.95"
    )
    assert decode({}) == ""


def test_two_that_met_are_compared_by_the_largest_meeting_whichever_way_they_are_named() -> None:
    first = [
        _one(1, "parent", "v0002", 0.4, 256),
        _one(4, "parent", "v0002", 0.41, 512),
        _one(5, "parent", "v0009", 0.5, 900),
    ]
    second = [_one(1, "candidate", "v0001", 0.5, 256), _one(4, "candidate", "v0001", 0.51, 512)]
    found = compared(first, second, "v0002")
    assert found is not None
    assert found["paired"]
    assert (found["first"]["mean"], found["second"]["mean"], found["first"]["n"]) == (0.41, 0.51, 512)
    assert found["difference"] == pytest.approx({"mean": 0.1, "low": 0.08, "high": 0.13})
    other_way = compared(second, first, "v0001")
    assert other_way is not None
    assert other_way["difference"] == pytest.approx({"mean": -0.1, "low": -0.13, "high": -0.08})


def test_two_that_never_met_are_compared_by_their_headlines_with_a_wider_interval() -> None:
    found = compared([_one(1, "parent", "v0002", 0.4, 512)], [_one(3, "candidate", "v0002", 0.5, 512)], "v0003")
    assert found is not None
    assert not found["paired"]
    assert found["difference"] == pytest.approx({"mean": 0.1, "low": 0.1 - 0.05, "high": 0.1 + 0.05})
    assert compared([], [_one(3, "candidate", "v0002", 0.5, 512)], "v0003") is None


def test_a_guard_has_its_interval() -> None:
    assert guard({"suite": "understanding", "value": 0.9, "n": 100}) == "90.0 [82.6, 94.5] of 100"
    assert guard({"suite": "diversity", "value": 0.0571, "n": 32}) == "0.057 of 32 prompts"


def test_a_comparison_tells_the_runs_setting_if_it_is_another_decode() -> None:
    one = _one(1, "candidate", "v0001", 0.7, 256)
    setting = {key: one[key] for key in ("judge", "guidance_scale", "temperature", "top_k", "top_p")}
    told = {"mean": 0.55, "low": 0.5, "high": 0.6, "n": 256, "gain": {"mean": 0.2, "low": 0.1, "high": 0.3}}
    same = one | {"at_setting": setting | told}
    assert not differs_at_setting(one)
    assert not differs_at_setting(same)
    tuned = same | {"temperature": 0.5}
    assert differs_at_setting(tuned)
    assert comparison(tuned).endswith(
        "; 55.0 [50.0, 60.0] of 256 at the run's setting (guidance 1.25, temperature 1), gain +20.0 [+10.0, +30.0], "
        "which did not decide"
    )


def test_a_best_decode_says_what_it_is_the_best_of() -> None:
    found = {
        "guidance_scale": 2.0,
        "temperature": 0.5,
        "top_k": 0,
        "top_p": 1.0,
        "share": 0.75,
        "prompts": 128,
        "of": 12,
    }
    assert best_decode(found) == "guidance 2, temperature 0.5 (75.0 % of 128 train prompts right, the best of 12)"
    assert best_decode(None) == "not tried"


CLOSING: dict[str, Any] = {
    "base": "v0001",
    "active": "v0003",
    "decodes": {
        "base": {"guidance_scale": 2.0, "temperature": 0.5},
        "active": {"guidance_scale": 1.25, "temperature": 0.5},
    },
    "heldout": {
        "base": {"mean": 0.64, "low": 0.6, "high": 0.68, "n": 512},
        "active": {"mean": 0.76, "low": 0.72, "high": 0.8, "n": 512},
        "delta": {"mean": 0.12, "low": 0.09, "high": 0.15},
    },
    "best_of": {"samples": 8, "prompts": 256, "one": 0.65, "best": 0.85, "share_of_way": 0.6},
}


def test_a_run_closes_with_one_line() -> None:
    assert closing(CLOSING) == (
        "At the end, on 512 held-out prompts: v0001 at its best decode (guidance 2, temperature 0.5) draws 64.0 [60.0, "
        "68.0] % right and v0003 at its best decode (guidance 1.25, temperature 0.5) draws 76.0 [72.0, 80.0] %: +12.0 "
        "[+9.0, +15.0] points, 0.60 of the way from one draw of v0001 (65.0 %) to its own best of 8 (85.0 %, 256 "
        "prompts)."
    )
    without = CLOSING | {"best_of": CLOSING["best_of"] | {"share_of_way": None}}
    assert closing(without).endswith("points, its own best of 8 is no better than one of its draws.")
    assert closing({"base": "v0001", "active": "v0001"}) == "At the end: v0001, the base, is still the active version."
    assert last_closing([{"closing": None}, {"closing": CLOSING}]) == closing(CLOSING)
    assert last_closing([{"closing": None}]) is None


@pytest.mark.parametrize(("prompts", "early"), [(128, True), (512, False)])
def test_a_look_before_the_last_one_is_early(prompts: int, early: bool) -> None:
    assert has_early_look([{"looks": None}, {"looks": {"prompts": prompts, "of": 512}}]) is early
