"""Messages to workers, and the queue of each role.

A message holds the id of a unit and the fencing token that the unit had when the message was sent, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from illume_db.tables.units import ROLE_OF_KIND, ROLES
from illume_loop.errors import UsageError

LARGEST = 2**63 - 1
"""The largest number that the database's columns hold."""


class BadMessageError(ValueError):
    """A message in another form than a coordinator sends."""


@dataclass(frozen=True, slots=True)
class UnitMessage:
    """A request to do a unit if its fencing token is still `token`."""

    unit_id: int
    token: int

    def payload(self) -> dict[str, int]:
        """Return the keyword arguments of the Celery task."""
        return {"unit_id": self.unit_id, "token": self.token}


def parse(arguments: object, payload: object) -> UnitMessage:
    """Return the message of a task's positional and keyword arguments.

    Raises BadMessageError if they are not exactly a unit_id and a token, both whole numbers in range.
    """
    if arguments not in ((), []) or not isinstance(payload, Mapping) or payload.keys() != {"unit_id", "token"}:
        raise BadMessageError("a message is a unit_id and a token, and nothing else")
    unit_id, token = payload["unit_id"], payload["token"]
    for number, least in ((unit_id, 1), (token, 0)):
        # A boolean is an int in Python, but no number in a message.
        if type(number) is not int or not least <= number <= LARGEST:
            raise BadMessageError("unit_id and token are whole numbers")
    return UnitMessage(unit_id, token)


KINDS_OF_ROLE: Mapping[str, tuple[str, ...]] = {
    role: tuple(kind for kind, its_role in ROLE_OF_KIND.items() if its_role == role) for role in ROLES
}


def queue_of(role: str) -> str:
    """Return the name of a role's queue."""
    return f"illume.{role}"


def checked_roles(roles: Iterable[str]) -> tuple[str, ...]:
    """Return the requested roles, each once, in the order of ROLES.

    Raises UsageError if there is none or if one is unknown.
    """
    wanted = set(roles)
    choices = " or ".join(f"--role {role}" for role in ROLES)
    if not wanted:
        raise UsageError(f"A worker needs a role: give {choices}.")
    unknown = sorted(wanted - set(ROLES))
    if unknown:
        raise UsageError(f"There is no role '{unknown[0]}': give {choices}.")
    return tuple(role for role in ROLES if role in wanted)
