"""The next steps follow from what the database holds, and from nothing else."""

from __future__ import annotations

import pytest

from illume_db.units import StageCounts
from illume_loop.loop.reconcile import (
    Curate,
    Decide,
    GiveUp,
    Issue,
    Move,
    PlanGate,
    PlanRound,
    RoundView,
    Step,
    reconcile,
)
from illume_loop.loop.states import RoundState


def _view(index: int, state: str, **units: str) -> RoundView:
    """`sample="dpl"` is one unit each that is done, pending, leased (and x is a dead one)."""
    counts = {
        kind: StageCounts(len(s), s.count("p"), s.count("l"), s.count("d"), s.count("x")) for kind, s in units.items()
    }
    return RoundView(index, RoundState(state), counts)


def _steps(state: str, *, index: int = 1, num_rounds: int = 3, **units: str) -> list[Step]:
    return reconcile([_view(index, state, **units)], num_rounds)


def test_a_new_run_plans_its_first_round() -> None:
    assert reconcile([], 3) == [PlanRound(1)]


@pytest.mark.parametrize("state", ["promoted", "rejected", "failed", "cancelled"])
def test_after_a_round_comes_the_next_until_there_are_enough(state: str) -> None:
    assert _steps(state, index=2) == [PlanRound(3)]
    assert _steps(state, index=3) == []
    assert _steps(state, index=3, num_rounds=4) == [PlanRound(4)]


@pytest.mark.parametrize(
    ("state", "units", "expected"),
    [
        ("planned", {"sample": "p", "assess": "p"}, Move(1, RoundState.SAMPLING)),
        ("planned", {"train": "pp"}, Move(1, RoundState.TRAINING)),
        ("sampling", {"sample": "dd", "assess": "pp"}, Move(1, RoundState.ASSESSING)),
        ("assessing", {"sample": "dd", "assess": "dd"}, Move(1, RoundState.CURATING)),
        ("curating", {"sample": "dd", "assess": "dd"}, Curate(1)),
        ("training", {"train": "d"}, PlanGate(1)),
        ("gating", {"evaluate": "dd"}, Decide(1)),
        ("gating", {}, Decide(1)),
    ],
)
def test_a_finished_stage_moves_on(state: str, units: dict[str, str], expected: Step) -> None:
    assert _steps(state, **units) == [expected]


@pytest.mark.parametrize("units", ["p", "l"])
def test_nothing_is_drawn_before_the_judge_is_calibrated(units: str) -> None:
    assert _steps("planned", evaluate=units, sample="p", assess="p") == [Issue(1, ("evaluate",))]
    assert _steps("planned", evaluate="d", sample="p", assess="p") == [Move(1, RoundState.SAMPLING)]
    assert _steps("planned", evaluate="x", sample="p", assess="p") == [GiveUp(1, "evaluate")]


@pytest.mark.parametrize("sample", ["p", "l", "dp", "dl", "dpl"])
def test_assessing_streams_into_sampling(sample: str) -> None:
    """Before more is drawn, what is drawn is assessed."""
    assert _steps("sampling", sample=sample, assess="p") == [Issue(1, ("assess", "sample"))]


@pytest.mark.parametrize(("state", "kind"), [("assessing", "assess"), ("training", "train"), ("gating", "evaluate")])
@pytest.mark.parametrize("units", ["p", "l", "dl", "dp"])
def test_a_stage_lasts_until_all_of_its_units_are_settled(state: str, kind: str, units: str) -> None:
    assert _steps(state, **{kind: units}) == [Issue(1, (kind,))]


@pytest.mark.parametrize(
    ("state", "kind"), [("sampling", "sample"), ("assessing", "assess"), ("training", "train"), ("gating", "evaluate")]
)
def test_a_dead_unit_ends_the_round(state: str, kind: str) -> None:
    assert _steps(state, **{kind: "px"}) == [GiveUp(1, kind)]


def test_a_dead_unit_of_an_ended_round_ends_nothing_more() -> None:
    assert _steps("failed", train="x") == [PlanRound(2)]


@pytest.mark.parametrize(
    ("units", "expected"),
    [("dddx", Move(1, RoundState.CURATING)), ("ddpx", Issue(1, ("assess",))), ("ddxx", GiveUp(1, "assess"))],
)
def test_a_round_may_lose_its_share_of_assessments(units: str, expected: Step) -> None:
    assert reconcile([_view(1, "assessing", sample="d", assess=units)], 3, tolerance=0.25) == [expected]


@pytest.mark.parametrize(("state", "kind"), [("training", "train"), ("gating", "evaluate")])
def test_no_share_of_trainings_and_measurements_may_be_lost(state: str, kind: str) -> None:
    assert reconcile([_view(1, state, **{kind: "ddddx"})], 3, tolerance=0.9) == [GiveUp(1, kind)]


class TestOverlap:
    """The next round draws and assesses while the one before is undecided."""

    def test_curating_plans_the_next_round_if_there_is_one(self) -> None:
        assert reconcile([_view(2, "curating")], 3, 1) == [Curate(2, plan_next=True)]
        assert reconcile([_view(3, "curating")], 3, 1) == [Curate(3)]
        assert reconcile([_view(2, "curating")], 3, 0) == [Curate(2)]

    def test_both_go_on_and_the_earlier_one_first(self) -> None:
        rounds = [_view(1, "training", train="p"), _view(2, "sampling", sample="dp", assess="pp")]
        assert reconcile(rounds, 3, 1) == [Issue(1, ("train",)), Issue(2, ("assess", "sample"))]

    @pytest.mark.parametrize("earlier", [_view(1, "training", train="l"), _view(1, "gating", evaluate="dl")])
    def test_a_round_is_not_curated_before_the_earlier_one_has_ended(self, earlier: RoundView) -> None:
        assessed = _view(2, "assessing", sample="d", assess="d")
        (step,) = reconcile([earlier, assessed], 3, 1)
        assert isinstance(step, Issue)
        assert step.index == 1
        assert reconcile([assessed], 3, 1) == [Move(2, RoundState.CURATING)]

    def test_never_more_than_two_rounds_are_open(self) -> None:
        rounds = [_view(1, "training", train="l"), _view(2, "failed", sample="x")]
        assert reconcile(rounds, 3, 1) == [Issue(1, ("train",))]
        assert reconcile([_view(1, "curating"), _view(2, "sampling", sample="p")], 3, 1)[0] == Curate(1)


def test_updates_of_workers_have_their_samples_drawn_and_scored_while_the_round_trains() -> None:
    assert _steps("training", sample="dp", assess="dp", train="dp") == [Issue(1, ("assess", "sample", "train"))]
    assert _steps("training", sample="dd", assess="dd", train="dp") == [Issue(1, ("train",))]
