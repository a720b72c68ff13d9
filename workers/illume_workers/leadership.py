"""The right to act for a run, which one coordinator has at a time.

Guarantee: what a coordinator changes is committed only while it is the leader: every one of its transactions begins by
renewing its leadership under its token and holds that row until the commit. One that was stopped, or cut off for
longer than its lease, finds another in its place and waits like any standby.
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
    """One coordinator's claim on a run."""

    def __init__(self, engine: Engine, run_id: int, lease_s: float, host: str = "") -> None:
        """`host` is the setting `runtime.host_name`."""
        self._engine, self._run_id, self._lease_s = engine, run_id, lease_s
        self._token: int | None = None
        self.owner = process_name(host_name(host))

    def acquire(self) -> bool:
        """Become the leader, unless another one is."""
        with transaction(self._engine) as session:
            self._token = runs.acquire_leadership(session, self._run_id, self.owner, self._lease_s)
        return self._token is not None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A transaction of the leader. Raises FencedOutError where another one took over."""
        if self._token is None:
            raise FencedOutError(f"of run {self._run_id}")
        with transaction(self._engine) as session:
            runs.renew_leadership(session, self._run_id, self._token, self._lease_s)
            yield session

    def release(self) -> None:
        """Let a standby take over at once."""
        if self._token is not None:
            with transaction(self._engine) as session:
                runs.release_leadership(session, self._run_id, self._token)
            self._token = None
