"""The leadership of a run, which one coordinator has at a time.

Invariants:

- A coordinator's transaction commits only while the coordinator is the leader. It begins with a renewal of the
  leadership under the coordinator's token, and locks the run's row until the commit.
- A coordinator that was stopped or cut off for longer than its lease loses the leadership if another coordinator
  stands by. It then waits as a standby.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from illume_db import runs
from illume_db.errors import FencedOutError
from illume_db.sessions import transaction
from illume_loop.host import host_name, process_name


class Leadership:
    """A coordinator's lease on a run."""

    def __init__(self, engine: Engine, run_id: int, lease_s: float, host: str = "") -> None:
        """Name the owner of the lease; `host` is the value of the setting `runtime.host_name`."""
        self._engine, self._run_id, self._lease_s = engine, run_id, lease_s
        self._token: int | None = None
        self.owner = process_name(host_name(host))

    def acquire(self) -> bool:
        """Take the leadership if no other coordinator has it; return whether it was taken."""
        with transaction(self._engine) as session:
            self._token = runs.acquire_leadership(session, self._run_id, self.owner, self._lease_s)
        return self._token is not None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open a transaction of the leader. Raises FencedOutError if another coordinator has taken over."""
        if self._token is None:
            raise FencedOutError(f"of run {self._run_id}")
        with transaction(self._engine) as session:
            runs.renew_leadership(session, self._run_id, self._token, self._lease_s)
            yield session

    def release(self) -> None:
        """Give up the leadership, so that a standby can take over at once."""
        if self._token is not None:
            with transaction(self._engine) as session:
                runs.release_leadership(session, self._run_id, self._token)
            self._token = None
