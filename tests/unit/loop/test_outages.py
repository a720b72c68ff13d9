"""Only a database that is away is waited for, and only for so long."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from illume_loop.loop.outages import RetryPolicy, is_outage


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)


def _fails(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def work() -> str:
        if left:
            raise left.pop()
        return "done"

    return work


AWAY = OperationalError("select", {}, sqlite3.OperationalError("server closed the connection"))
FULL = OperationalError("insert", {}, sqlite3.OperationalError("database or disk is full"))
WRONG = IntegrityError("insert", {}, sqlite3.IntegrityError("unique"))
DROPPED = DBAPIError("select", {}, sqlite3.Error("gone"), connection_invalidated=True)


def test_an_outage_is_waited_for_ever_more_slowly() -> None:
    clock = Clock()
    assert RetryPolicy(60, clock.sleep, lambda: clock.now).run_through(_fails(9, AWAY)) == "done"
    assert clock.slept == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]


def test_a_pool_without_a_connection_is_an_outage() -> None:
    clock = Clock()
    exhausted = PoolTimeoutError("QueuePool limit of size 5 overflow 10 reached")
    assert RetryPolicy(60, clock.sleep, lambda: clock.now).run_through(_fails(2, exhausted)) == "done"


def test_a_longer_outage_is_told_at_the_deadline() -> None:
    clock = Clock()
    with pytest.raises(OperationalError):
        RetryPolicy(10, clock.sleep, lambda: clock.now).run_through(_fails(1000, AWAY))
    assert clock.now == pytest.approx(10)


@pytest.mark.parametrize("error", [FULL, WRONG, ValueError("ours")])
def test_anything_else_is_told_at_once(error: Exception) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        RetryPolicy(60, clock.sleep, lambda: clock.now).run_through(_fails(1, error))
    assert clock.slept == []


def test_a_dropped_connection_is_an_outage() -> None:
    assert is_outage(DROPPED)
    assert not is_outage(WRONG)
