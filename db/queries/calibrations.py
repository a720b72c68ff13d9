"""A run's calibration and its rounds' drifts."""

from __future__ import annotations

from sqlalchemy.orm import Session

from db.models import Calibration, Drift


def calibration_of_run(session: Session, run_id: int) -> Calibration | None:
    """The calibration of a run, where it has one."""
    return session.get(Calibration, run_id)


def drift_of_round(session: Session, round_id: int) -> Drift | None:
    """How far the round's candidate drifted as a judge, where it was measured."""
    return session.get(Drift, round_id)
