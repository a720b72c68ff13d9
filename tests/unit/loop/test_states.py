"""The allowed moves, all of them; every other one is refused."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from illume_db.tables.rounds import ROUND_STATES
from illume_db.tables.versions import VERSION_STATES
from illume_loop.errors import IllegalTransitionError
from illume_loop.loop.states import Decider, RoundState, VersionState, transition, version_transition

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINE = ("planned", "sampling", "assessing", "curating", "training", "gating")
ALLOWED = {
    *pairwise(LINE),
    ("planned", "training"),
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


VERSION_MOVES = {
    ("candidate", "active"),
    ("candidate", "rejected"),
    ("active", "retired"),
    ("rejected", "active"),
    ("retired", "active"),
}
"""All moves of model versions that anybody may ever make."""


@pytest.mark.parametrize(("current", "target"), list(product(VERSION_STATES, VERSION_STATES)))
@pytest.mark.parametrize("decider", list(Decider))
@pytest.mark.parametrize("under_trial", [True, False])
def test_a_version_moves_only_as_whoever_decides_may_move_it(
    current: str, target: str, decider: Decider, under_trial: bool
) -> None:
    retires = (current, target) == ("active", "retired")
    allowed = (current, target) in VERSION_MOVES and (retires or under_trial == (decider is Decider.GATE))
    here, there = VersionState(current), VersionState(target)
    if allowed:
        assert version_transition(here, there, under_trial=under_trial, decider=decider) is there
    else:
        with pytest.raises(IllegalTransitionError, match=f"from {current} to {target}"):
            version_transition(here, there, under_trial=under_trial, decider=decider)


def test_the_database_knows_the_same_states_of_versions() -> None:
    assert tuple(state.value for state in VersionState) == VERSION_STATES


class _Life:
    """A run on paper: rounds and versions that move by the pure transitions alone."""

    def __init__(self) -> None:
        self.versions = [VersionState.ACTIVE]
        self.rounds: list[RoundState] = []
        self.candidates: dict[int, int] = {}
        """Version by round."""

    @property
    def active(self) -> int:
        [place] = [place for place, state in enumerate(self.versions) if state is VersionState.ACTIVE]
        return place

    def on_trial(self, version: int) -> bool:
        return any(its == version and not self.rounds[round_].is_terminal for round_, its in self.candidates.items())

    def advance(self, target: RoundState) -> None:
        """Move the round under way, and do with its candidate what the end of the round asks for."""
        place = len(self.rounds) - 1
        self.rounds[place] = transition(self.rounds[place], target, NOW).target
        if target is RoundState.GATING:
            self.versions.append(VersionState.CANDIDATE)
            self.candidates[place] = len(self.versions) - 1
        elif target is RoundState.PROMOTED:
            self._swap(self.candidates[place], Decider.GATE, under_trial=True)
        elif target.is_terminal and place in self.candidates:
            version = self.candidates[place]
            self.versions[version] = version_transition(
                self.versions[version], VersionState.REJECTED, under_trial=True, decider=Decider.GATE
            )

    def promote(self, version: int) -> None:
        self._swap(version, Decider.PERSON, under_trial=self.on_trial(version))

    def _swap(self, version: int, decider: Decider, *, under_trial: bool) -> None:
        old, new = self.active, self.versions[version]
        new = version_transition(new, VersionState.ACTIVE, under_trial=under_trial, decider=decider)
        retired = version_transition(self.versions[old], VersionState.RETIRED, under_trial=False, decider=decider)
        self.versions[old], self.versions[version] = retired, new


@given(st.data())
def test_whatever_gate_and_people_do_one_version_is_active_and_what_has_ended_stays(data: st.DataObject) -> None:
    life = _Life()
    for _ in range(data.draw(st.integers(1, 40))):
        ended = [state if state.is_terminal else None for state in life.rounds]
        trials = [version for version in range(len(life.versions)) if life.on_trial(version)]
        before = list(life.versions)
        if data.draw(st.booleans()):
            if not life.rounds or life.rounds[-1].is_terminal:
                life.rounds.append(RoundState.PLANNED)
            target = data.draw(st.sampled_from(list(RoundState)))
            with suppress(IllegalTransitionError):
                life.advance(target)
        else:
            with suppress(IllegalTransitionError):
                life.promote(data.draw(st.integers(0, len(life.versions) - 1)))
            assert [life.versions[version] for version in trials] == [before[version] for version in trials]
        assert life.versions.count(VersionState.ACTIVE) == 1
        assert [state for state in ended if state] == [now for now, was in zip(life.rounds, ended, strict=False) if was]
