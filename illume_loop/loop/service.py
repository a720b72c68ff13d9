"""The loop as a service: one coordinator leads, others stand by, workers on any host do the units.

Guarantee: a coordinator may be killed, stopped or cut off at any moment, and started any number of times; the one that
leads continues from the database. An unreachable Postgres or Redis is tried again for `cluster.reconnect_s`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from sqlalchemy.exc import DBAPIError

from db.errors import FencedOutError
from illume_loop.config import ClusterSettings
from illume_loop.loop.coordinator import Coordinator, Turn
from illume_loop.loop.leadership import Leadership
from illume_loop.loop.outages import Patience

FIRST_PAUSE_S = 0.02

log = logging.getLogger(__name__)


def lead(
    leadership: Leadership,
    make_coordinator: Callable[[], Coordinator],
    settings: ClusterSettings,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Coordinate until nothing is left to do, waiting for the leadership first and whenever it is lost.

    Raises what the coordinator raises, and the database's error where it stays away.
    """
    patience = Patience(settings.reconnect_s, sleep)
    longest_s = min(settings.poll_s, settings.leader_lease_s / 3)
    while True:
        _stand_by(leadership, patience, longest_s, sleep)
        try:
            _turn(make_coordinator(), patience, longest_s, sleep)
            return
        except FencedOutError:
            log.warning("another coordinator took over, standing by")
        finally:
            _release(leadership)


def _stand_by(
    leadership: Leadership, patience: Patience, longest_s: float, sleep: Callable[[float], object]
) -> None:
    waiting = False
    while not patience.outlast(leadership.acquire):
        if not waiting:
            log.info("another coordinator leads this run, standing by")
            waiting = True
        sleep(longest_s)
    log.info("%s leads", leadership.owner)


def _turn(
    coordinator: Coordinator, patience: Patience, longest_s: float, sleep: Callable[[float], object]
) -> None:
    """Tick, at once after anything has moved and ever more slowly while nothing does."""
    pause = FIRST_PAUSE_S
    while True:
        match patience.outlast(coordinator.tick):
            case Turn.OVER:
                return
            case Turn.CHANGED:
                pause = FIRST_PAUSE_S
            case Turn.MOVED:
                pause = FIRST_PAUSE_S
                sleep(min(pause, longest_s))
            case Turn.WAITING:
                sleep(min(pause, longest_s))
                pause *= 2


def _release(leadership: Leadership) -> None:
    try:
        leadership.release()
    except DBAPIError as error:
        # It runs out by itself.
        log.warning("could not give up the leadership, the database is away: %s", error.orig)
