"""A run of the fourth revision goes on at the fifth; a calibration and a drift are kept as they were written."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from illume_db import migrate
from illume_db.judging import add_calibration, add_drift, calibration_of_run, drift_of_round
from illume_db.sessions import open_engine, transaction
from illume_db.tables import Run
from tests.integration.db.test_revision_0003 import fill

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CONTENT: dict[str, Any] = {"coefficients": [0.1, 1e-17, -3.3333333333333335], "labels": "checker"}


@pytest.fixture
def old_url(empty_url: str) -> str:
    """A database at the fourth revision with a run."""
    migrate.upgrade(empty_url, "0002")
    engine = open_engine(empty_url)
    with engine.begin() as connection:
        fill(connection)
    engine.dispose()
    migrate.upgrade(empty_url, "0004")
    return empty_url


def test_up_down_up_keeps_the_run(old_url: str) -> None:
    for step in (migrate.upgrade, lambda url: migrate.downgrade(url, "0004"), migrate.upgrade):
        step(old_url)
    assert migrate.drift(old_url) == []
    engine = open_engine(old_url)
    with transaction(engine) as session:
        assert session.get_one(Run, 1).teacher_calls == 0
        assert calibration_of_run(session, 1) is None
        assert drift_of_round(session, 1) is None
    engine.dispose()


def test_numbers_come_back_to_the_last_bit_and_cannot_be_changed(old_url: str) -> None:
    migrate.upgrade(old_url)
    engine = open_engine(old_url)
    with transaction(engine) as session:
        add_calibration(session, 1, sha256="0" * 64, content=CONTENT, at=NOW)
        add_drift(session, 1, num_samples=256, shift=0.1, auc=None, num_failed=0, at=NOW)
    with transaction(engine) as session:
        calibration, drift = calibration_of_run(session, 1), drift_of_round(session, 1)
        assert calibration is not None
        assert calibration.content == CONTENT
        assert drift is not None
        assert (drift.shift, drift.auc, drift.num_failed) == (0.1, None, 0)
    for change in ("UPDATE calibrations SET sha256 = 'x'", "UPDATE drifts SET shift = 0"):
        with engine.connect() as connection, pytest.raises(DBAPIError, match="_are_immutable"):
            connection.execute(text(change))
    with pytest.raises(DBAPIError), transaction(engine) as session:
        add_drift(session, 1, num_samples=1, shift=0.0, auc=None, num_failed=0, at=NOW)
    engine.dispose()
