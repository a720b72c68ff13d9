"""The sender of messages through Celery: it puts units into the queues of the roles that do them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from illume_db.tables.units import ROLE_OF_KIND
from illume_db.units import UnitRow
from illume_loop.errors import BrokerUnusableError
from illume_loop.settings import ClusterSettings
from illume_workers.app import TASK, make_app
from illume_workers.messages import UnitMessage, queue_of


class CelerySender:
    """A sender through Celery and Redis. It tolerates an outage of Redis; the dispatcher passes unsent units again."""

    def __init__(self, settings: ClusterSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = make_app(settings)
        self._settings = settings
        self._clock = clock
        self._away_since: float | None = None

    def send(self, units: Sequence[UnitRow]) -> Sequence[UnitRow]:
        """Send units with their present tokens; return the units that were sent.

        Raises BrokerUnusableError if Redis has been away for longer than `reconnect_s`.
        """
        from kombu.exceptions import OperationalError

        sent: list[UnitRow] = []
        try:
            for unit in units:
                self._app.send_task(
                    TASK,
                    kwargs=UnitMessage(unit.id, unit.token).payload(),
                    queue=queue_of(ROLE_OF_KIND[unit.kind]),
                    # One retry at once, because the connection may be older than a restart of Redis.
                    retry_policy={"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0},
                )
                sent.append(unit)
        except OperationalError as error:
            self._note_outage(error)
        else:
            if units:
                self._away_since = None
        return sent

    def _note_outage(self, error: Exception) -> None:
        now = self._clock()
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since > self._settings.reconnect_s:
            url = self._app.connection_for_write().as_uri()
            raise BrokerUnusableError(url=url, seconds=round(now - self._away_since)) from error
