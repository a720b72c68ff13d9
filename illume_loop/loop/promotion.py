"""Decide which model version is active: by a person, by the gate, and by the repair of a run that has none.

Invariants:

- Exactly one version is active after each of these functions. A unique index prevents two.
- Every move is one that `loop/states.py` allows.
- Each decision holds the run's row, so decisions come one at a time.
- The gate never replaces a version that a person made active while the gate's round was under way. It gives that as the
  reason instead.
- An open round keeps the version that it draws with. It also keeps the parent that its candidate has to beat, once that
  is fixed.
- Each decision of a person is an event in the run's event log, with the person's name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from illume_db.rounds import latest_round, round_of_candidate
from illume_db.runs import add_event, last_event_of_kind, lock_run
from illume_db.tables import ModelVersion, Round
from illume_db.tables.versions import version_name
from illume_db.versions import active_version, base_version, move_version, version_of
from illume_loop.errors import (
    IllegalTransitionError,
    InconsistentRunError,
    NoActiveVersionError,
    NotFoundError,
    PromotionError,
    UnderTrialError,
)
from illume_loop.loop.states import Decider, RoundState, VersionState, version_transition

NONE_ACTIVE = "(none)"
"""The name of the replaced version, in a run that had no active version."""
BY_HAND = "promoted"
"""The kind of the events about people's decisions."""

# --- by hand ---------------------------------------------------------------------------------------------------------


def promote(session: Session, run_id: int, name: str, *, by: str) -> str:
    """Make a version active; return the name of the version that was active.

    A person may overrule the gate's decision, but not before the gate has decided. Raises NotFoundError,
    UnderTrialError while the version is under trial, PromotionError if it is active already.
    """
    lock_run(session, run_id)
    target = _version(session, run_id, name)
    return _activate(session, run_id, target, f"{by} promoted {target.name}")


def rollback(session: Session, run_id: int, *, by: str, expected: str | None = None) -> tuple[str, str]:
    """Make the parent of the active version active again; return the names (active before, active now).

    Raises NoActiveVersionError, and PromotionError if the active version is the base, or is not `expected`.
    """
    lock_run(session, run_id)
    active = active_of(session, run_id)
    if expected is not None and active.name != expected:
        raise PromotionError(name=f"the parent of {expected}", reason=f"{active.name} is active by now")
    if active.parent_id is None:
        raise PromotionError(name="an older version", reason=f"{active.name} is the base of the run")
    target = session.get_one(ModelVersion, active.parent_id)
    was = _activate(session, run_id, target, f"{by} rolled back from {active.name} to {target.name}")
    return was, target.name


def active_of(session: Session, run_id: int) -> ModelVersion:
    """Return the active version. Raises NoActiveVersionError."""
    active = active_version(session, run_id)
    if active is None:
        raise NoActiveVersionError
    return active


def open_trial(session: Session, version: ModelVersion) -> Round | None:
    """Return the open round in which a version is under trial; None if it is not under trial."""
    round_ = round_of_candidate(session, version.id)
    return round_ if round_ is not None and not RoundState(round_.state).is_terminal else None


def _activate(session: Session, run_id: int, target: ModelVersion, message: str) -> str:
    active = active_version(session, run_id)
    if active is not None and target.id == active.id:
        raise PromotionError(name=target.name, reason="it is active already")
    trial = open_trial(session, target)
    if trial is not None:
        raise UnderTrialError(name=target.name, index=trial.index)
    if active is not None:
        _move(session, active, VersionState.RETIRED, Decider.PERSON)
    _move(session, target, VersionState.ACTIVE, Decider.PERSON)
    add_event(session, run_id, BY_HAND, message, at=datetime.now(UTC))
    return NONE_ACTIVE if active is None else active.name


def _version(session: Session, run_id: int, name: str) -> ModelVersion:
    for version in session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id)):
        if version.name == name:
            return version
    raise NotFoundError(kind="model version", name=name)


# --- by the gate -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Conclusion:
    """The end of a trial: the round's last state, and reasons besides the gate's own."""

    target: RoundState
    reasons: list[str] = field(default_factory=list)
    replaces: ModelVersion | None = None
    """The version that the candidate replaces; None if the active version stays."""


def conclude(session: Session, run_id: int, round_: Round, *, passed: bool, auto_promote: bool) -> Conclusion:
    """Return how a round's trial ends, after the gate has judged its candidate. Changes nothing.

    A candidate that passes replaces the parent that it has beaten. If a person made another version active while the
    round was under way, that version stays, and the candidate waits for a person. It also waits if `auto_promote` is
    off.
    """
    candidate = candidate_of(session, round_)
    active = active_of(session, run_id)
    if candidate.state != VersionState.CANDIDATE:
        # An older release let a person promote a version under trial.
        decided = f"{candidate.name} was decided on by hand during its trial and stays {candidate.state}"
        return Conclusion(
            RoundState.PROMOTED if passed and active.id == candidate.id else RoundState.REJECTED, [decided]
        )
    if not passed:
        return Conclusion(RoundState.REJECTED)
    if active.id != round_.parent_version_id:
        return Conclusion(RoundState.REJECTED, [_decided_meanwhile(session, run_id, candidate, active)])
    if not auto_promote:
        return Conclusion(RoundState.REJECTED, ["the gate would promote it, but gate.auto_promote is off"])
    return Conclusion(RoundState.PROMOTED, replaces=active)


def settle(session: Session, candidate: ModelVersion, conclusion: Conclusion, *, passed: bool) -> None:
    """Move the versions of a trial that has ended. The caller moves the round before, in the same transaction."""
    if conclusion.replaces is not None:
        _move(session, conclusion.replaces, VersionState.RETIRED, Decider.GATE)
        _move(session, candidate, VersionState.ACTIVE, Decider.GATE, under_trial=True)
    elif not passed:
        end_trial(session, candidate)


def end_trial(session: Session, candidate: ModelVersion) -> None:
    """Reject a candidate whose round has ended without promoting it."""
    if candidate.state == VersionState.CANDIDATE:
        _move(session, candidate, VersionState.REJECTED, Decider.GATE, under_trial=True)


def candidate_of(session: Session, round_: Round) -> ModelVersion:
    """Return the candidate of a round that has trained. Raises InconsistentRunError."""
    if round_.candidate_version_id is None:
        raise InconsistentRunError(what=f"round {round_.index} is {round_.state} and has no candidate")
    return version_of(session, round_.candidate_version_id)


def _decided_meanwhile(session: Session, run_id: int, candidate: ModelVersion, active: ModelVersion) -> str:
    decided = last_event_of_kind(session, run_id, BY_HAND) or f"{active.name} was made active by hand"
    return (
        f"the gate accepts {candidate.name}, but {decided} while the round was under way, so {active.name} stays "
        f"active; `illume-loop models promote {candidate.name}` makes {candidate.name} active"
    )


# --- repair ----------------------------------------------------------------------------------------------------------


def repair(session: Session, run_id: int) -> str | None:
    """Make a version active in a run that has none, and return a message; return None if one is active.

    That version is the parent of the latest round, with which the gate compared last, or else the base.
    """
    lock_run(session, run_id)
    if active_version(session, run_id) is not None:
        return None
    latest = latest_round(session, run_id)
    base = base_version(session, run_id)
    target = base if latest is None else version_of(session, latest.parent_version_id)
    if open_trial(session, target) is not None:
        target = base
    origin = "the base of the run" if latest is None or target.id == base.id else f"the parent of round {latest.index}"
    _move(session, target, VersionState.ACTIVE, Decider.PERSON)
    message = f"repaired: no version was active, {version_name(target.number)} ({origin}) is active again"
    add_event(session, run_id, "repaired", message, at=datetime.now(UTC))
    return message


def _move(
    session: Session, version: ModelVersion, target: VersionState, decider: Decider, *, under_trial: bool = False
) -> None:
    current = VersionState(version.state)
    version_transition(current, target, under_trial=under_trial, decider=decider)
    if not move_version(session, version.id, current.value, target.value):
        raise IllegalTransitionError(kind="model version", current=current.value, target=target.value)
    session.refresh(version)
