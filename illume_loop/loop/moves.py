"""Move a round from state to state, and record the moves in the run's event log."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from illume_db.rounds import move_round
from illume_db.runs import add_event
from illume_db.tables import Round
from illume_db.units import first_dead, reset_ready_times
from illume_loop.errors import IllegalTransitionError, InconsistentRunError, UnitDeadError
from illume_loop.loop.context import RunContext
from illume_loop.loop.promotion import active_of, candidate_of, end_trial
from illume_loop.loop.states import RoundState, transition


def move(context: RunContext, session: Session, round_: Round, target: RoundState, **values: Any) -> None:
    """Move a round to a state. Raises IllegalTransitionError, also if someone else has moved it meanwhile.

    When the round moves to curating, the version that is active then becomes the parent that its candidate has to beat.
    """
    if target == RoundState.CURATING:
        values["parent_version_id"] = active_of(session, context.run_id).id
    step = transition(RoundState(round_.state), target, context.clock())
    if not move_round(session, round_.id, step.current, step.target, ended_at=step.ended_at, **values):
        raise IllegalTransitionError(kind="round", current=round_.state, target=target.value)
    if target in (RoundState.SAMPLING, RoundState.TRAINING):
        # Reset the time since which the units wait. With an earlier time, an idle worker would conclude that units are
        # sent to it and do not arrive, and it would end itself.
        reset_ready_times(session, round_.id)
    if target == RoundState.FAILED and round_.candidate_version_id is not None:
        end_trial(session, candidate_of(session, round_))
    note(context, session, round_, "moved", f"round {round_.index} is {target.value}")


def give_up(context: RunContext, session: Session, round_: Round, kind: str) -> None:
    """Fail a round because of its dead units of a kind."""
    unit = first_dead(session, round_.id, kind)
    if unit is None:
        raise InconsistentRunError(what=f"round {round_.index} counts dead units of the kind {kind} and has none")
    error = UnitDeadError(unit=unit.key, attempts=unit.attempts, reason=(unit.error or "").removesuffix("."))
    move(context, session, round_, RoundState.FAILED, error=str(error))


def note(context: RunContext, session: Session, round_: Round, kind: str, message: str) -> None:
    """Add an event about a round to the run's event log."""
    add_event(session, context.run_id, kind, message, at=context.clock(), round_id=round_.id)
