"""Redis goes away while a worker has a unit in hand, so what is lost first is the acknowledgement of its message."""

from __future__ import annotations

import signal
import subprocess
import time

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from illume_db.sessions import transaction
from illume_db.tables import Unit
from tests.support.service import Service


def _num_leased(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(Unit).where(Unit.state == "leased")) or 0


def _stop_with_a_unit_in_hand(service: Service, worker: subprocess.Popen[bytes]) -> None:
    with service.engine() as engine:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            worker.send_signal(signal.SIGSTOP)
            with transaction(engine) as session:
                if _num_leased(session):
                    return
            worker.send_signal(signal.SIGCONT)
            time.sleep(0.01)
    raise AssertionError(f"the worker never had a unit in hand\n{service.logs()}")


def test_the_worker_takes_further_units(service: Service) -> None:
    worker = service.worker("generator", "assessor", "trainer", name="all")
    coordinator = service.coordinator()
    _stop_with_a_unit_in_hand(service, worker)
    service.redis.kill()
    worker.send_signal(signal.SIGCONT)
    try:
        service.wait_for(lambda session: not _num_leased(session), "the end of the unit in hand")
        time.sleep(0.2)  # the acknowledgement comes after the commit
    finally:
        service.redis.start()
    assert service.ended(coordinator, 60) == 0, service.logs()
    assert worker.poll() is None, "it was not started again"
