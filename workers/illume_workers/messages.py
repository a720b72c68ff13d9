"""What a message says: a unit, and the fencing token that the unit had when it was sent. Nothing else.

Guarantee: whatever arrives, at most these two whole numbers leave this module. A message that was duplicated, delayed,
restored or made up names a token that the unit no longer has, and the lease is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
