"""The states of a round and the ways between them. Pure: no clock of its own, no database.

    planned -> sampling -> assessing -> curating -> training -> gating -> promoted | rejected
    any of these -> failed | cancelled

Guarantee: nothing leaves a terminal state. Forbidden above all: promoted -> anything, because later rounds have drawn
with that model. The database refuses it too, in a trigger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from illume_loop.errors import IllegalTransitionError


class RoundState(StrEnum):
    """Where a round is."""

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
        """Whether the round has ended."""
        return not NEXT[self]


S = RoundState
_ALWAYS = frozenset({S.FAILED, S.CANCELLED})

NEXT: Mapping[RoundState, frozenset[RoundState]] = {
    S.PLANNED: _ALWAYS | {S.SAMPLING},
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
    """The move from `current` to `target` at `now`. Raises IllegalTransitionError."""
    if target not in NEXT[current]:
        raise IllegalTransitionError(kind="round", current=current.value, target=target.value)
    return Transition(current, target, now if target.is_terminal else None)
