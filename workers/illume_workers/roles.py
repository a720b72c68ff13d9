"""Roles: which kinds of units a worker does, and the queue on which it hears of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from illume_db.tables.units import ROLE_OF_KIND, ROLES
from illume_loop.errors import UsageError

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
