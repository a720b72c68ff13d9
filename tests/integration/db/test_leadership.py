"""One coordinator acts for a run, and one that was replaced changes nothing any more."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, func, select

from illume_db.errors import FencedOutError
from illume_db.runs import acquire_leadership, add_event, add_run, release_leadership, renew_leadership
from illume_db.sessions import transaction
from illume_db.tables import Event

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RUN = 1


@pytest.fixture(autouse=True)
def _run(engine: Engine) -> None:
    with transaction(engine) as session:
        add_run(session, key="k", name="n", seed=0, settings={}, at=NOW)


def _acquire(engine: Engine, owner: str, lease_s: float = 60.0) -> int | None:
    with transaction(engine) as session:
        return acquire_leadership(session, RUN, owner, lease_s)


def _write(engine: Engine, token: int) -> None:
    with transaction(engine) as session:
        add_event(session, RUN, "written", "a coordinator writes", at=NOW)
        renew_leadership(session, RUN, token, 60.0)


def test_one_of_many_leads(engine: Engine) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda name: _acquire(engine, name), map(str, range(16))))
    assert sorted(token for token in tokens if token is not None) == [1]


def test_a_standby_takes_over_when_the_lease_has_run_out(engine: Engine) -> None:
    first = _acquire(engine, "first", lease_s=0.05)
    assert first is not None
    second = None
    while second is None:
        second = _acquire(engine, "second")
    assert second > first
    with pytest.raises(FencedOutError):
        _write(engine, first)
    with transaction(engine) as session:
        release_leadership(session, RUN, first)
    _write(engine, second)
    with transaction(engine) as session:
        assert session.scalar(select(func.count()).select_from(Event)) == 1
    assert _acquire(engine, "third") is None


def test_a_silent_leader_goes_on_if_nobody_took_over(engine: Engine) -> None:
    token = _acquire(engine, "first", lease_s=-1.0)
    assert token is not None
    with transaction(engine) as session:
        renew_leadership(session, RUN, token, 60.0)
    assert _acquire(engine, "second") is None


def test_who_leaves_lets_the_next_one_in_at_once(engine: Engine) -> None:
    token = _acquire(engine, "first")
    assert token is not None
    with transaction(engine) as session:
        release_leadership(session, RUN, token)
    with pytest.raises(FencedOutError), transaction(engine) as session:
        renew_leadership(session, RUN, token, 60.0)
    assert _acquire(engine, "second") == token + 1
