"""Access to the dashboard: roles, passwords, sessions, and a limit on wrong passwords.

Invariants:
- A visitor from another machine needs a password.
- A server that other machines can reach does not start without a password (`check_reachable`).
- Sessions live in this process; a restart ends them, and logging out ends one.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from ipaddress import ip_address

from illume_loop.errors import UsageError
from illume_loop.settings import DashboardSettings

COOKIE = "illume_session"
SESSION_S = 12 * 3600.0
MOST_SESSIONS = 10_000
TRIES, TRIES_S = 5, 60.0
"""The maximum of wrong passwords from one address, and the seconds after which a wrong password no longer counts."""
ALL_TRIES = 100
"""The maximum of wrong passwords from all addresses in that time."""

Clock = Callable[[], float]


class Role(IntEnum):
    """The role of a visitor; each role includes the rights of those before it."""

    READER = 1
    REVIEWER = 2
    ADMIN = 3


@dataclass(frozen=True, slots=True)
class Visitor:
    """A person with access; every form that they send must carry the token `csrf`."""

    name: str
    role: Role
    csrf: str = field(repr=False)

    def may(self, role: Role) -> bool:
        """Return True if the visitor has this role or a higher one."""
        return self.role >= role


def is_loopback(host: str) -> bool:
    """Return True if only this machine can reach the address or name."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def passwords_of(settings: DashboardSettings) -> dict[Role, str]:
    """Return the passwords that are set, by role."""
    given = {
        Role.READER: settings.reader_password,
        Role.REVIEWER: settings.reviewer_password,
        Role.ADMIN: settings.admin_password,
    }
    return {role: password for role, password in given.items() if password}


def check_reachable(host: str, passwords: Mapping[Role, str]) -> None:
    """Raise UsageError if other machines could reach the server and no password is set."""
    if not is_loopback(host) and not passwords:
        raise UsageError(
            f"the dashboard at {host} would be open to everyone; set ILLUME_DASHBOARD__ADMIN_PASSWORD or "
            "ILLUME_DASHBOARD__ADMIN_PASSWORD_FILE (and those for reviewer and reader), or leave out --host"
        )


class Access:
    """The passwords and sessions of a server. Without passwords, every visitor is an admin with the local name."""

    def __init__(self, passwords: Mapping[Role, str], local_name: str, clock: Clock = time.monotonic) -> None:
        self.passwords = dict(passwords)
        self._local = None if passwords else Visitor(local_name, Role.ADMIN, secrets.token_urlsafe(32))
        self._sessions: OrderedDict[str, tuple[Visitor, float]] = OrderedDict()
        self._lock, self._clock = threading.Lock(), clock

    @property
    def is_open(self) -> bool:
        """True if no password is set."""
        return not self.passwords

    def role_of(self, password: str) -> Role | None:
        """Return the role of a password, or None. It compares all passwords, so that the time gives nothing away."""
        found = None
        for role, expected in self.passwords.items():
            if hmac.compare_digest(expected.encode(), password.encode(errors="replace")):
                found = role
        return found

    def begin(self, name: str, role: Role) -> tuple[str, Visitor]:
        """Begin a session; return its token for the cookie, and the visitor."""
        token, visitor = secrets.token_urlsafe(32), Visitor(name, role, secrets.token_urlsafe(32))
        with self._lock:
            self._sessions[token] = (visitor, self._clock() + SESSION_S)
            while len(self._sessions) > MOST_SESSIONS:
                self._sessions.popitem(last=False)
        return token, visitor

    def visitor(self, token: str | None) -> Visitor | None:
        """Return the visitor of a session token; without a session, the local visitor, or None if passwords are set."""
        with self._lock:
            found = self._sessions.get(token or "")
            if found is not None and found[1] > self._clock():
                return found[0]
            self._sessions.pop(token or "", None)
        return self._local

    def end(self, token: str | None) -> None:
        """End a session."""
        with self._lock:
            self._sessions.pop(token or "", None)


class Guesses:
    """The recent wrong passwords, counted per address and over all addresses."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._wrong: deque[tuple[float, str]] = deque()
        self._lock = threading.Lock()

    def wait_s(self, address: str) -> float:
        """Return the seconds until an address may try again; 0 means now."""
        with self._lock:
            now = self._clock()
            while self._wrong and self._wrong[0][0] <= now - TRIES_S:
                self._wrong.popleft()
            mine = [at for at, by in self._wrong if by == address]
            blocking = mine[-TRIES] if len(mine) >= TRIES else None
            if len(self._wrong) >= ALL_TRIES:
                blocking = max(blocking or 0.0, self._wrong[-ALL_TRIES][0])
            return 0.0 if blocking is None else max(0.0, blocking + TRIES_S - now)

    def wrong(self, address: str) -> None:
        """Record a wrong password."""
        with self._lock:
            self._wrong.append((self._clock(), address))
