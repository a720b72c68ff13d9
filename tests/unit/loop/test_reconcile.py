"""The next step follows from what the database holds, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from db.queries.progress import UnitRow
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


def _unit(kind: str, state: str, first: int = 0, stop: int = 4) -> UnitRow:
    return UnitRow(0, 0, 1, kind, f"{kind}/{first}", state, {"first": first, "stop": stop}, 0, None)


def _step(state: str, *units: UnitRow, index: int = 1, num_rounds: int = 3) -> Step | None:
    return reconcile(RoundView(index, RoundState(state), units), num_rounds)


def _issued(step: Step | None) -> list[str]:
    assert isinstance(step, Issue)
    return [unit.key for unit in step.units]


def test_a_new_run_plans_its_first_round() -> None:
    assert reconcile(None, 3) == PlanRound(1)


@pytest.mark.parametrize("state", ["promoted", "rejected", "failed", "cancelled"])
def test_after_a_round_comes_the_next_until_there_are_enough(state: str) -> None:
    assert _step(state, index=2) == PlanRound(3)
    assert _step(state, index=3) is None
    assert _step(state, index=3, num_rounds=4) == PlanRound(4)


@pytest.mark.parametrize(
    ("state", "units", "expected"),
    [
        ("planned", [_unit("sample", "pending")], Move(RoundState.SAMPLING)),
        ("sampling", [_unit("sample", "done"), _unit("assess", "pending")], Move(RoundState.ASSESSING)),
        ("assessing", [_unit("sample", "done"), _unit("assess", "done")], Move(RoundState.CURATING)),
        ("curating", [_unit("sample", "done"), _unit("assess", "done")], Curate()),
        ("training", [_unit("train", "done")], PlanGate()),
        ("gating", [_unit("evaluate", "done")], Decide()),
        ("gating", [], Decide()),
    ],
)
def test_a_finished_stage_moves_on(state: str, units: Sequence[UnitRow], expected: Step) -> None:
    assert _step(state, *units) == expected


def test_assessing_streams_into_sampling() -> None:
    """An assessment is due, before more is drawn, as soon as all of its own rows are there."""
    units = [
        _unit("sample", "done", 0, 4),
        _unit("sample", "pending", 4, 8),
        _unit("sample", "pending", 8, 12),
        _unit("assess", "pending", 0, 3),
        _unit("assess", "pending", 3, 6),
        _unit("assess", "pending", 6, 9),
    ]
    assert _issued(_step("sampling", *units)) == ["assess/0", "sample/4", "sample/8"]


@pytest.mark.parametrize(("state", "kind"), [("assessing", "assess"), ("training", "train"), ("gating", "evaluate")])
def test_units_that_are_done_or_leased_are_not_issued_again(state: str, kind: str) -> None:
    units = [_unit(kind, "done", 0, 4), _unit(kind, "leased", 4, 8), _unit(kind, "pending", 8, 12)]
    assert _issued(_step(state, *units)) == [f"{kind}/8"]


@pytest.mark.parametrize("state", ["sampling", "assessing", "training", "gating"])
def test_a_dead_unit_ends_the_round(state: str) -> None:
    dead = _unit("train", "dead")
    assert _step(state, _unit("train", "pending"), dead) == GiveUp(dead)


def test_a_dead_unit_of_an_ended_round_ends_nothing_more() -> None:
    assert _step("failed", _unit("train", "dead"), index=1) == PlanRound(2)
