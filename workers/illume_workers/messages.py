"""What a message to a worker says, and the queue of the role that takes it.

A message names a unit and the fencing token that the unit had when it was sent, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from illume_db.tables.units import ROLE_OF_KIND, ROLES
from illume_loop.errors import UsageError

LARGEST = 2**63 - 1
"""What the database's columns hold."""


class BadMessageError(ValueError):
    """A message that no coordinator of ours has sent."""


@dataclass(frozen=True, slots=True)
class UnitMessage:
    """Do this unit, if it still has this token."""

    unit_id: int
    token: int

    def payload(self) -> dict[str, int]:
        """What travels."""
        return {"unit_id": self.unit_id, "token": self.token}


def parse(arguments: object, payload: object) -> UnitMessage:
    """The message of a task's positional and keyword arguments. Raises BadMessageError."""
    if arguments not in ((), []) or not isinstance(payload, Mapping) or payload.keys() != {"unit_id", "token"}:
        raise BadMessageError("a message is a unit_id and a token, and nothing else")
    unit_id, token = payload["unit_id"], payload["token"]
    for number, least in ((unit_id, 1), (token, 0)):
        # A boolean is an int to Python; it is none to us.
        if type(number) is not int or not least <= number <= LARGEST:
            raise BadMessageError("unit_id and token are whole numbers")
    return UnitMessage(unit_id, token)


KINDS_OF_ROLE: Mapping[str, tuple[str, ...]] = {
    role: tuple(kind for kind, its_role in ROLE_OF_KIND.items() if its_role == role) for role in ROLES
}


def queue_of(role: str) -> str:
    """The name of the queue of a role."""
    return f"illume.{role}"


def checked_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """The roles asked for, each once, in their usual order. Raises UsageError for none and for an unknown one."""
    wanted = set(roles)
    choices = " or ".join(f"--role {role}" for role in ROLES)
    if not wanted:
        raise UsageError(f"A worker needs a role: give {choices}.")
    unknown = sorted(wanted - set(ROLES))
    if unknown:
        raise UsageError(f"There is no role '{unknown[0]}': give {choices}.")
    return tuple(role for role in ROLES if role in wanted)
