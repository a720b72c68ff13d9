"""Reinforcement learning with workers: generators draw and assessors score for a trainer, whatever dies or stops."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from illume_db.tables import Unit, Update
from illume_loop.loop.context import default_toolbox
from tests.support.canned_run import start
from tests.support.service import Service
from tests.support.sharp_base import sharpened, small_recipe
from tests.support.updates import SMALL_UPDATES, by_workers, update_result, update_settings

STALENESS = 1


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("base")
    sharpened(small_recipe(), folder / "making").save(folder / "base")
    return folder / "base"


@pytest.fixture(scope="module")
def expected(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What an inline run of the same settings comes to."""
    folder = tmp_path_factory.mktemp("inline")
    start(update_settings(base, run__rounds=1, **by_workers(STALENESS)), folder / "run", default_toolbox())
    return without_ids(update_result(folder / "run"))


def without_ids(found: dict[str, Any]) -> dict[str, Any]:
    """What workers may not change: the ids of samples depend on the order in which they end."""
    rollouts = sorted(one[1:] for one in found["rollouts"])
    return {name: found[name] for name in ("samples", "updates", "groups", "models")} | {"rollouts": rollouts}


@pytest.fixture
def learning(service: Service, base: Path) -> Service:
    """A service whose run has one round of updates."""
    of_workers = {name.replace("__", "."): value for name, value in by_workers(STALENESS).items()}
    service.settings |= SMALL_UPDATES | of_workers | {"run.rounds": 1, "run.base": str(base)}
    return service


def found_by(learning: Service) -> dict[str, Any]:
    found = update_result(learning.run_dir, database_url=learning.database_url, artifacts_url=learning.artifacts_url)
    return without_ids(found)


def of_update(index: int, kind: str, *states: str) -> Any:
    """A query for a unit of an update that is in one of the states."""
    of_kind = select(Unit).where(Unit.kind == kind, Unit.state.in_(states)).order_by(Unit.id)
    return lambda session: next((u for u in session.scalars(of_kind) if u.payload.get("update") == index), None)


def test_workers_that_are_killed_within_updates_change_nothing(learning: Service, expected: dict[str, Any]) -> None:
    kind_of = {"assessor": "assess", "generator": "sample", "trainer": "train"}
    workers = {role: learning.worker(role, name=role) for role in kind_of}
    coordinator = learning.coordinator()
    for index, (role, kind) in enumerate(kind_of.items(), start=1):
        learning.wait_for(of_update(index, kind, "leased", "done"), f"a {kind} unit of update {index}")
        workers[role].send_signal(signal.SIGKILL)
        learning.worker(role, name=f"{role} two")
    assert learning.ended(coordinator, 240) == 0, learning.logs()
    assert found_by(learning) == expected


def test_a_generator_that_stands_still_makes_the_trainer_wait(learning: Service, expected: dict[str, Any]) -> None:
    stopped = learning.worker("generator", name="generator", ILLUME_CLUSTER__LEASE_S="120")
    learning.worker("assessor", "trainer", name="rest")
    coordinator = learning.coordinator()
    learning.wait_for(of_update(2, "sample", "done"), "a sample of update 2")
    stopped.send_signal(signal.SIGSTOP)
    ready = select(func.count()).select_from(Unit).where(Unit.kind == "train", Unit.ready_at.is_not(None))
    is_open = Unit.state.in_(("pending", "leased"))
    learning.wait_for(lambda session: not session.scalar(ready.where(is_open)), "the trainer to have nothing to do")
    with learning.engine() as engine, engine.connect() as connection:
        num_updates = connection.scalar(select(func.count()).select_from(Update)) or 0
    assert num_updates < 3
    stopped.send_signal(signal.SIGCONT)
    assert learning.ended(coordinator, 240) == 0, learning.logs()
    assert found_by(learning) == expected
    assert [row["staleness"] for _, row in found_by(learning)["updates"]] == [0, 1, 1]
