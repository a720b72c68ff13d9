"""Adding a run's calibration and its rounds' drifts, once each."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db.models import Calibration, Drift


def add_calibration(session: Session, run_id: int, *, sha256: str, content: dict[str, Any], at: datetime) -> None:
    """Add the calibration of a run. A second one violates its primary key."""
    session.add(Calibration(run_id=run_id, sha256=sha256, content=content, created_at=at))
    session.flush()


def add_drift(
    session: Session,
    round_id: int,
    *,
    num_samples: int,
    shift: float,
    auc: float | None,
    num_failed: int,
    at: datetime,
) -> None:
    """Add what was found of a round's candidate. A second time violates its primary key."""
    values = {"num_samples": num_samples, "shift": shift, "auc": auc, "num_failed": num_failed}
    session.add(Drift(round_id=round_id, **values, created_at=at))
    session.flush()
