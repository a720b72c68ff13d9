"""The allowed moves, all of them; every other one is refused."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise, product

import pytest

from db.models.round import ROUND_STATES
from illume_loop.errors import IllegalTransitionError
from illume_loop.loop.states import RoundState, transition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINE = ("planned", "sampling", "assessing", "curating", "training", "gating")
ALLOWED = {
    *pairwise(LINE),
    ("gating", "promoted"),
    ("gating", "rejected"),
    *product(LINE, ("failed", "cancelled")),
}


@pytest.mark.parametrize(("current", "target"), list(product(ROUND_STATES, ROUND_STATES)))
def test_exactly_the_allowed_moves_are_allowed(current: str, target: str) -> None:
    if (current, target) in ALLOWED:
        step = transition(RoundState(current), RoundState(target), NOW)
        assert (step.ended_at == NOW) == (target not in LINE)
    else:
        with pytest.raises(IllegalTransitionError, match=f"from {current} to {target}"):
            transition(RoundState(current), RoundState(target), NOW)


def test_the_database_knows_the_same_states() -> None:
    assert tuple(state.value for state in RoundState) == ROUND_STATES


def test_terminal_states_have_no_way_out() -> None:
    assert {state.value for state in RoundState if state.is_terminal} == {"promoted", "rejected", "failed", "cancelled"}
