"""The states of rounds and of model versions, and the allowed moves between them. Pure.

    round:    planned -> sampling -> assessing -> curating -> training -> gating -> promoted | rejected
              planned -> training, if the objective learns from rewards: its updates draw, judge and learn
              any of these -> failed | cancelled
    version:  candidate -> active | rejected     active -> retired     rejected | retired -> active

Invariants (triggers in the database keep them too):

- A round never leaves a terminal state. This matters most for `promoted`, because later rounds have drawn with that
  model.
- Only the gate moves a version that is under trial.
- An active version can only be retired, and only when another version takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from illume_loop.errors import IllegalTransitionError


class RoundState(StrEnum):
    """The states of a round."""

    PLANNED = "planned"
    SAMPLING = "sampling"
    ASSESSING = "assessing"
    CURATING = "curating"
    TRAINING = "training"
    GATING = "gating"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """True if the round has ended."""
        return not NEXT[self]


S = RoundState
_ALWAYS = frozenset({S.FAILED, S.CANCELLED})

NEXT: Mapping[RoundState, frozenset[RoundState]] = {
    S.PLANNED: _ALWAYS | {S.SAMPLING, S.TRAINING},
    S.SAMPLING: _ALWAYS | {S.ASSESSING},
    S.ASSESSING: _ALWAYS | {S.CURATING},
    S.CURATING: _ALWAYS | {S.TRAINING},
    S.TRAINING: _ALWAYS | {S.GATING},
    S.GATING: _ALWAYS | {S.PROMOTED, S.REJECTED},
    S.PROMOTED: frozenset(),
    S.REJECTED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Transition:
    """A permitted move; `ended_at` is set exactly when the target is terminal."""

    current: RoundState
    target: RoundState
    ended_at: datetime | None


def transition(current: RoundState, target: RoundState, now: datetime) -> Transition:
    """Return the move of a round from `current` to `target` at `now`. Raises IllegalTransitionError."""
    if target not in NEXT[current]:
        raise IllegalTransitionError(kind="round", current=current.value, target=target.value)
    return Transition(current, target, now if target.is_terminal else None)


class VersionState(StrEnum):
    """The states of a model version.

    A candidate is under trial while the round that trained it is open. After that round, a version that is still a
    candidate was accepted by the gate, and nobody has made it active yet.
    """

    CANDIDATE = "candidate"
    ACTIVE = "active"
    REJECTED = "rejected"
    RETIRED = "retired"


class Decider(StrEnum):
    """The two deciders about a model version: the gate of the round that trained it, and a person."""

    GATE = "gate"
    PERSON = "person"


V = VersionState

VERSION_NEXT: Mapping[VersionState, frozenset[VersionState]] = {
    V.CANDIDATE: frozenset({V.ACTIVE, V.REJECTED}),
    V.ACTIVE: frozenset({V.RETIRED}),
    V.REJECTED: frozenset({V.ACTIVE}),
    V.RETIRED: frozenset({V.ACTIVE}),
}


def version_transition(
    current: VersionState, target: VersionState, *, under_trial: bool, decider: Decider
) -> VersionState:
    """Return `target` if `decider` may move a version there. Raises IllegalTransitionError.

    Only the gate moves a version under trial, and the gate moves no other version. The exception is the active version
    that a candidate replaces, which the gate may retire.
    """
    if target not in VERSION_NEXT[current]:
        raise IllegalTransitionError(kind="model version", current=current.value, target=target.value)
    retires = (current, target) == (V.ACTIVE, V.RETIRED)
    if not retires and under_trial != (decider is Decider.GATE):
        kind = "model version under trial" if under_trial else "model version that is not under trial"
        raise IllegalTransitionError(kind=kind, current=current.value, target=target.value)
    return target
