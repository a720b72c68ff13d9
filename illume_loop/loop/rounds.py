"""A person's decisions about rounds: to cancel one, or to run an ended one again.

A decision is written to the database, with or without a coordinator at work on the run. The coordinator finds it at its
next tick, with either executor.

Invariants:

- A cancelled round ends at once. Its state is `cancelled`, and no unit of it can be begun or finished any more.
- Terminal states stay final. To run a round again, a new round with a number of its own draws the same prompts.
- Each decision is an event in the run's event log, with the person's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.orm import Session

from illume_db.leases import drop_units
from illume_db.manifests import drop_checkpoints_of_round
from illume_db.rounds import find_round, move_round, request_retry, retry_of
from illume_db.runs import add_event, lock_run
from illume_db.tables import Round
from illume_loop.errors import IllegalTransitionError, NotFoundError, NotRetriableError, RoundOverError, UsageError
from illume_loop.loop.promotion import candidate_of, end_trial
from illume_loop.loop.states import RoundState, transition

RETRIABLE = (RoundState.FAILED, RoundState.CANCELLED)
MOST_REASON = 500
"""The largest number of characters in a reason that a person gives."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancelled round, with its state before and the number of units that were leased."""

    round_id: int
    index: int
    was: str
    num_held: int


def cancel(session: Session, run_id: int, index: int, *, by: str, reason: str = "") -> Cancelled:
    """End a round now. Workers lose the leases on its units, and its candidate under trial is rejected.

    Raises NotFoundError, and RoundOverError if the round has ended.
    """
    lock_run(session, run_id)
    round_ = _round(session, run_id, index)
    was, now = RoundState(round_.state), datetime.now(UTC)
    if was.is_terminal:
        raise RoundOverError(index=index, state=was.value)
    # A worker that finishes a unit locks the unit and then its round, so the units come first here too.
    num_held = drop_units(session, round_.id)
    session.refresh(round_)
    message = f"cancelled by {by}{_because(reason)}"
    step = transition(was, RoundState.CANCELLED, now)
    if not move_round(session, round_.id, step.current, step.target, ended_at=step.ended_at, error=message):
        raise IllegalTransitionError(kind="round", current=was.value, target=step.target.value)
    if round_.candidate_version_id is not None:
        end_trial(session, candidate_of(session, round_))
    drop_checkpoints_of_round(session, round_.id)
    add_event(session, run_id, "cancelled", f"round {index}, {was.value}: {message}", at=now, round_id=round_.id)
    return Cancelled(round_.id, index, was.value, num_held)


def retry(session: Session, run_id: int, index: int, *, by: str, reason: str = "") -> str:
    """Request that a failed or cancelled round is run again; return the state in which it ended.

    The coordinator plans the new round when it would plan the next one. Raises NotFoundError, and NotRetriableError if
    the round is neither failed nor cancelled, or is run again already.
    """
    lock_run(session, run_id)
    round_ = _round(session, run_id, index)
    state, now = RoundState(round_.state), datetime.now(UTC)
    if state not in RETRIABLE:
        raise NotRetriableError(index=index, reason=_why_not(state, index))
    if not request_retry(session, round_.id, now):
        raise NotRetriableError(index=index, reason=_why_not_again(session, round_))
    message = f"round {index}, {state.value}: to be run again, as {by} asked{_because(reason)}"
    add_event(session, run_id, "retried", message, at=now, round_id=round_.id)
    return state.value


def _round(session: Session, run_id: int, index: int) -> Round:
    round_ = find_round(session, run_id, index)
    if round_ is None:
        raise NotFoundError(kind="round", name=index)
    return round_


def _because(reason: str) -> str:
    """Return a person's reason as the end of a sentence. Raises UsageError if it is not one line of text."""
    words = reason.strip()
    if len(words) > MOST_REASON or not words.isprintable():
        raise UsageError(f"a reason is one line of at most {MOST_REASON} printable characters")
    return f": {words}" if words else ""


def _why_not(state: RoundState, index: int) -> str:
    if state.is_terminal:
        return f"it was {state.value}, and only failed and cancelled rounds are run again"
    return f"it is under way ({state.value}); cancel it first with `illume-loop rounds cancel {index}`"


def _why_not_again(session: Session, round_: Round) -> str:
    again = retry_of(session, round_.id)
    if again is None:
        return "that was asked for already, and its turn has not come yet"
    if RoundState(again.state) in RETRIABLE:
        return f"it was run again as round {again.index}; use `illume-loop rounds retry {again.index}`"
    return f"it was run again as round {again.index}, which is {again.state}"
