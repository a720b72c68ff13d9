"""The gate promotes what is better by more than noise, and says why it does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from illume_db.evaluations import StoredEvaluation
from illume_loop.judge.agreement import JudgeDrift
from illume_loop.loop.closing import best_of_numbers
from illume_loop.loop.gate_plans import look_sizes
from illume_loop.loop.stages.gate import Judgement, Measured, judge
from illume_loop.protocols import Sampling
from illume_loop.settings import GateSettings

SETTINGS = GateSettings(
    heldout_prompts=200, confidence=0.95, resamples=2000, min_gain=0.0, understanding_margin=0.04, diversity_ratio=0.8
)
WEAK = [True] * 100 + [False] * 100
STRONG = [True] * 130 + [False] * 70


def _measured(heldout: list[bool], understanding: float = 0.9, diversity: float = 0.6) -> Measured:
    """The first of 1,000 probes are right, so whoever has fewer right has lost some and gained none."""
    return Measured(heldout, [index < 1000 * understanding for index in range(1000)], diversity)


def _changed(lost: int, gained: int, count: int = 1000) -> tuple[list[bool], list[bool]]:
    """Outcomes of the base, 90 % right, and of a candidate that lost and gained so many of them."""
    num_right = round(0.9 * count)
    before = [index < num_right for index in range(count)]
    return before, [lost <= index < num_right + gained for index in range(count)]


def _judged(base: Measured, parent: Measured, candidate: Measured, settings: GateSettings = SETTINGS) -> Judgement:
    judgement = judge(base, parent, candidate, settings, 0)
    assert judgement is not None
    return judgement


def _looked(size: int, parent: float, candidate: float, settings: GateSettings) -> Judgement | None:
    """After `size` prompts, with these shares passed; prompts that both pass come first."""
    before, after = ([index < share * size for index in range(size)] for share in (parent, candidate))
    return judge(_measured([]), _measured(before), _measured(after), settings, 0)


def test_a_clear_gain_is_promoted_with_its_numbers() -> None:
    judgement = _judged(_measured([]), _measured(WEAK), _measured(STRONG))
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
    judgement = _judged(_measured([]), _measured(WEAK), _measured(WEAK))
    assert not judgement.passed
    assert judgement.reasons == ["heldout gain +0.0 [-1.4, 1.4]", "the lower end of the gain is not above 0.0"]


def test_a_gain_within_noise_is_rejected() -> None:
    swapped = [*WEAK[:90], *[False] * 10, *[True] * 14, *WEAK[114:]]
    judgement = _judged(_measured([]), _measured(WEAK), _measured(swapped))
    assert not judgement.passed
    assert judgement.reasons[0].startswith("heldout gain +2.0 [-")


def test_the_least_gain_is_a_setting() -> None:
    settings = SETTINGS.model_copy(update={"min_gain": 0.14})
    assert not _judged(_measured([]), _measured(WEAK), _measured(STRONG), settings).passed


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (
            _measured(STRONG, understanding=0.85),
            "understanding may have lost 4.0 points or more: it changed by -5.0 points from the base's 90.0 over "
            "1000 items, and the test excludes losses beyond 6.5 only",
        ),
        (_measured(STRONG, diversity=0.4), "diversity fell from the base's 0.60 to 0.40, below 0.80 of it"),
    ],
)
def test_a_guard_stops_a_gain(candidate: Measured, reason: str) -> None:
    judgement = _judged(_measured([]), _measured(WEAK), candidate)
    assert not judgement.passed
    assert judgement.reasons[1:] == [reason]


@pytest.mark.parametrize(
    ("drift", "reasons"),
    [
        (JudgeDrift(256, 0.5, 0.9, 0), []),
        (JudgeDrift(256, -0.5, None, 0), []),
        (
            JudgeDrift(256, 0.51, 0.95, 0),
            ["its judgement drifted by +0.51 in log-odds from the frozen judge's, more than 0.50"],
        ),
        (
            JudgeDrift(256, -2.0, 0.95, 0),
            ["its judgement drifted by -2.00 in log-odds from the frozen judge's, more than 0.50"],
        ),
        (
            JudgeDrift(256, 0.0, 0.899, 0),
            ["its judgement agrees with the frozen judge's by an AUC of 0.899, below 0.900"],
        ),
        (JudgeDrift(255, 0.0, 0.95, 1), ["it could not judge 1 samples that the frozen judge could"]),
    ],
)
def test_the_alarm_of_drift_stops_a_gain(drift: JudgeDrift, reasons: list[str]) -> None:
    settings = SETTINGS.model_copy(update={"drift_margin": 0.5, "drift_auc": 0.9})
    candidate = replace(_measured(STRONG), drift=drift)
    judgement = _judged(_measured([]), _measured(WEAK), candidate, settings)
    assert judgement.passed is not bool(reasons)
    assert judgement.reasons[1:] == reasons
    assert judgement.numbers["judge_drift"] == {
        "n": drift.n,
        "shift": drift.shift,
        "auc": drift.auc,
        "num_failed": drift.num_failed,
    }


def test_without_a_measure_of_drift_there_is_no_alarm() -> None:
    judgement = _judged(_measured([]), _measured(WEAK), _measured(STRONG))
    assert judgement.passed
    assert judgement.numbers["judge_drift"] is None


def test_guards_look_at_the_base_not_at_a_parent_that_lost_already() -> None:
    parent = _measured(WEAK, understanding=0.87, diversity=0.5)
    candidate = _measured(STRONG, understanding=0.85, diversity=0.45)
    judgement = _judged(_measured([]), parent, candidate)
    assert len(judgement.reasons) == 3


@pytest.mark.parametrize(
    ("prompts", "sizes"), [(512, (128, 256, 512)), (257, (65, 129, 257)), (200, (100, 200)), (24, (24,)), (1, (1,))]
)
def test_looks_double_and_end_with_all_prompts(prompts: int, sizes: tuple[int, ...]) -> None:
    assert look_sizes(GateSettings(heldout_prompts=prompts)) == sizes


class TestLooks:
    """The gate stops as soon as it is clear, either way."""

    SETTINGS = GateSettings()

    def test_a_great_gain_is_clear_early(self) -> None:
        judgement = _looked(256, 0.4, 0.58, self.SETTINGS)
        assert judgement is not None
        assert judgement.passed
        assert judgement.reasons[0].endswith("] after 256 of 512 prompts")
        assert judgement.numbers["heldout"]["candidate"]["n"] == 256

    def test_a_gain_that_one_look_would_promote_is_looked_at_again(self) -> None:
        """8.6 points at 128 prompts are 3.5 standard errors: too few for the first look of three."""
        assert _looked(128, 0.4, 0.485, self.SETTINGS) is None
        assert _looked(256, 0.4, 0.42, self.SETTINGS) is None

    def test_a_loss_is_hopeless_early(self) -> None:
        judgement = _looked(128, 0.45, 0.4, self.SETTINGS)
        assert judgement is not None
        assert not judgement.passed
        assert judgement.reasons[1] == "the lower end of the gain is not above 0.0"
        assert "stopped early: more prompts had a 0.0 % chance of changing the result" in judgement.reasons[2]

    def test_the_same_outcomes_say_little_at_first(self) -> None:
        assert _looked(128, 0.4, 0.4, self.SETTINGS) is None
        judgement = _looked(256, 0.4, 0.4, self.SETTINGS)
        assert judgement is not None
        assert not judgement.passed

    def test_the_last_look_decides(self) -> None:
        """Two points more of the same prompts are certain at 512; a gain of noise is not."""
        assert _looked(512, 0.4, 0.42, self.SETTINGS) is not None

    def test_a_guard_ends_it_at_the_first_look(self) -> None:
        """Whatever the gain will be: understanding is lost already."""
        before, after = [False] * 128, [True] * 5 + [False] * 123
        assert judge(_measured([]), _measured(before), _measured(after), self.SETTINGS, 0) is None
        collapsed = _measured(after, understanding=0.5)
        judgement = _judged(_measured([]), _measured(before), collapsed, self.SETTINGS)
        assert not judgement.passed
        assert judgement.reasons[-1].startswith("understanding may have lost 4.0 points or more: it changed by -40.0")

    def test_a_measure_that_is_no_number_is_refused(self) -> None:
        candidate = _measured(STRONG, diversity=float("nan"))
        judgement = _judged(_measured([]), _measured(WEAK), candidate, SETTINGS)
        assert not judgement.passed
        assert len(judgement.reasons) == 2


@pytest.mark.parametrize(("changed", "promoted"), [(4, False), (5, False), (6, True)])
def test_few_changes_are_no_proof_though_all_are_for_the_better(changed: int, promoted: bool) -> None:
    """Equals do so with a chance of 6, 3 and 1.6 %."""
    after = [True] * (100 + changed) + [False] * (100 - changed)
    assert _judged(_measured([]), _measured(WEAK), _measured(after)).passed is promoted


@pytest.mark.parametrize("correlated", [0.0, 0.5, 0.97])
def test_an_equal_candidate_is_promoted_as_seldom_as_stated(correlated: float) -> None:
    """At most 2.5 % of 1,000 trials, give or take two standard errors; docs/experiments/gate has the measured rate."""
    settings = GateSettings(heldout_prompts=256, resamples=100)
    generator = np.random.default_rng(0)
    promoted = 0
    for trial in range(1000):
        before = generator.random(256) < 0.42
        after = np.where(generator.random(256) < correlated, before, generator.random(256) < 0.42)
        verdicts = (
            judge(_measured([]), _measured(before[:n].tolist()), _measured(after[:n].tolist()), settings, trial)
            for n in look_sizes(settings)
        )
        promoted += next(verdict for verdict in verdicts if verdict).passed
    assert promoted <= 35


@pytest.mark.parametrize(
    ("lost", "gained", "passes"),
    [
        (0, 0, True),
        (30, 30, True),  # equals whose outcomes differ by chance
        (45, 30, True),
        (45, 15, False),  # a share within the margin, and yet a loss of 4 points is not excluded
        (70, 30, False),
    ],
)
def test_understanding_passes_where_a_loss_of_the_margin_is_excluded(lost: int, gained: int, passes: bool) -> None:
    before, after = _changed(lost, gained)
    base, candidate = (
        replace(_measured(heldout), understanding=one) for heldout, one in ((WEAK, before), (STRONG, after))
    )
    judgement = _judged(base, _measured(WEAK), candidate)
    assert judgement.passed is passes
    found = judgement.numbers["guards"]["understanding"]
    assert found["mean"] == pytest.approx((gained - lost) / 1000)
    assert (found["lost"], found["gained"], found["n"], found["margin"]) == (lost, gained, 1000, 0.04)
    assert found["low"] < found["mean"] or lost == gained == 0
    assert found["passed"] is passes is (found["low"] > -0.04)
    assert found["tested"]


def test_an_undecided_guard_says_how_many_items_would_tell() -> None:
    before, after = _changed(25, 20, count=256)
    base, candidate = (
        replace(_measured(heldout), understanding=one) for heldout, one in ((WEAK, before), (STRONG, after))
    )
    judgement = _judged(base, _measured(WEAK), candidate)
    assert judgement.reasons[1].endswith("; gate.probe_items = 1428 would tell")


@pytest.mark.parametrize(("lost", "passes"), [(0, True), (1, False)])
def test_of_too_few_items_the_shares_are_compared_and_the_numbers_say_so(lost: int, passes: bool) -> None:
    """A run of 12 probes cannot exclude a loss of 4 points, whatever they say."""
    before, after = _changed(lost, 0, count=12)
    base, candidate = (
        replace(_measured(heldout), understanding=one) for heldout, one in ((WEAK, before), (STRONG, after))
    )
    judgement = _judged(base, _measured(WEAK), candidate)
    assert judgement.passed is passes
    assert judgement.numbers["guards"]["understanding"]["tested"] is False
    assert judgement.reasons[1:] == (
        [] if passes else ["understanding changed by -8.3 points from the base's 91.7, a loss of more than 4.0"]
    )


def test_a_margin_of_one_allows_every_loss() -> None:
    settings = SETTINGS.model_copy(update={"understanding_margin": 1.0})
    candidate = replace(_measured(STRONG), understanding=[False] * 1000)
    base = replace(_measured([]), understanding=[True] * 1000)
    assert _judged(base, _measured(WEAK), candidate, settings).passed


def test_outcomes_of_other_items_cannot_be_compared() -> None:
    candidate = replace(_measured(STRONG), understanding=[True] * 3)
    with pytest.raises(ValueError, match="1000 outcomes cannot be paired with 3"):
        judge(_measured([]), _measured(WEAK), candidate, SETTINGS, 0)


@pytest.mark.parametrize(("num_right", "passes"), [(80, True), (76, True), (68, False)])
def test_a_gain_is_no_promotion_where_editing_was_forgotten(num_right: int, passes: bool) -> None:
    base, parent, candidate = (
        replace(one, editing=[index < right for index in range(200)])
        for one, right in ((_measured([]), 80), (_measured(WEAK), 60), (_measured(STRONG), num_right))
    )
    judgement = _judged(base, parent, candidate)
    assert judgement.passed is passes
    assert [reason.split(" by")[0] for reason in judgement.reasons[1:]] == (
        [] if passes else ["editing may have lost 8.0 points or more: it changed"]
    )
    editing = judgement.numbers["editing"]
    assert editing["parent"]["mean"] == 0.3
    assert editing["delta"]["mean"] == pytest.approx(num_right / 200 - 0.3)
    assert editing["delta"]["low"] <= editing["delta"]["mean"] <= editing["delta"]["high"]
    assert judgement.numbers["guards"]["editing"]["mean"] == pytest.approx((num_right - 80) / 200)


def test_without_edits_nothing_is_said_of_editing() -> None:
    assert _judged(_measured([]), _measured(WEAK), _measured(STRONG)).numbers["editing"] is None


class TestDecodes:
    """The comparison at the best decodes decides; the one at the run's setting is told."""

    SETTING = Sampling(1.25, 1.0)
    LOW, HIGH = Sampling(2.0, 0.5), Sampling(1.25, 0.5)

    def _judged(self, parent: Measured, candidate: Measured) -> Judgement:
        judgement = judge(_measured([]), parent, candidate, SETTINGS, 0, self.SETTING)
        assert judgement is not None
        return judgement

    def test_a_gain_at_the_setting_alone_is_no_promotion(self) -> None:
        parent = replace(_measured(STRONG), at_setting=WEAK, decode=self.LOW)
        candidate = replace(_measured(STRONG), at_setting=STRONG, decode=self.HIGH)
        judgement = self._judged(parent, candidate)
        assert not judgement.passed
        assert judgement.reasons[0] == (
            "heldout gain +0.0 [-1.4, 1.4] with each at its best decode (parent: guidance 2, temperature 0.5; "
            "candidate: guidance 1.25, temperature 0.5)"
        )
        assert judgement.reasons[1].startswith("with both at the run's setting (guidance 1.25, temperature 1) +15.0 [")
        assert judgement.numbers["heldout"]["delta"]["mean"] == 0.0
        assert judgement.numbers["at_setting"]["delta"]["mean"] == pytest.approx(0.15)
        assert judgement.numbers["decodes"]["parent"]["guidance_scale"] == 2.0

    def test_a_gain_at_the_best_decodes_alone_promotes(self) -> None:
        parent, candidate = (
            replace(_measured(heldout), at_setting=STRONG, decode=self.LOW) for heldout in (WEAK, STRONG)
        )
        judgement = self._judged(parent, candidate)
        assert judgement.passed
        assert "] with both at guidance 2, temperature 0.5, each one's best decode" in judgement.reasons[0]

    def test_where_the_setting_is_best_nothing_more_is_said(self) -> None:
        parent, candidate = (
            replace(_measured(heldout), at_setting=heldout, decode=self.SETTING) for heldout in (WEAK, STRONG)
        )
        judgement = self._judged(parent, candidate)
        assert len(judgement.reasons) == 1
        assert judgement.numbers["at_setting"] == judgement.numbers["heldout"]
        assert judgement.numbers["looks"] == {"prompts": 200, "of": 200}


def test_the_share_of_the_way_is_that_of_one_draw_to_the_best_of_eight() -> None:
    parts = [
        StoredEvaluation(0.75, [True] * 16 + [False] * 16),
        StoredEvaluation(1.0, [True] * 4 + [False] * 4),
    ]
    found = best_of_numbers(parts, 0.15)
    assert (found["samples"], found["prompts"]) == (8, 5)
    assert found["one"] == pytest.approx(0.5)
    assert found["best"] == pytest.approx(0.8)
    assert found["share_of_way"] == pytest.approx(0.5)
    assert best_of_numbers([StoredEvaluation(0.0, [True, *[False] * 7])], 0.1)["share_of_way"] is None
