"""Whatever goes wrong, a run ends with the same samples, manifests and decisions as one in which nothing did.

In two of three seeds people give commands too: they cancel rounds, have them run again, promote and roll back. Such a
run is held to what must hold of any run (see `tests.chaos.invariants`).

The few seeds of every test run have each kind of fault at least once. `pytest -m chaos` runs a hundred others; the
results of such a run are in docs/experiments/service/.
"""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.campaign import stage
from tests.chaos.faults import KINDS, OPERATIONS, Fault, Plan, plan_of
from tests.chaos.trial import LEASE_S, Stage

FEW = (0, 2, 7, 12, 16, 19, 58)
MANY = range(1000, 1100)


@pytest.fixture(scope="module")
def scene() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="illume-chaos-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        with stage(folder) as opened:
            yield opened


def test_the_few_seeds_have_every_kind() -> None:
    plans = [plan_of(seed, LEASE_S) for seed in FEW]
    assert {fault.kind for plan in plans for fault in plan.faults} == set(KINDS)
    assert {operation.kind for plan in plans for operation in plan.operations} == set(OPERATIONS)
    assert not all(plan.operations for plan in plans)


def test_nothing_goes_wrong(scene: Stage) -> None:
    verdict = scene.play(Plan(-1, run_seed=0, overlap=1, standby=True, faults=()))
    assert (verdict.result, verdict.notes) == ("held", ())


@pytest.mark.parametrize("seed", FEW)
def test_few_seeds(scene: Stage, seed: int) -> None:
    verdict = scene.play(plan_of(seed, LEASE_S))
    assert (verdict.result, verdict.notes) == ("held", ())


@pytest.mark.chaos
@pytest.mark.parametrize("seed", MANY)
def test_many_seeds(scene: Stage, seed: int) -> None:
    verdict = scene.play(plan_of(seed, LEASE_S))
    assert verdict.result in ("held", "failed"), verdict.notes


@pytest.mark.chaos
@pytest.mark.parametrize(("role", "point"), [("generator", 21), ("assessor", 31), ("trainer", 15), ("coordinator", 40)])
def test_a_process_that_never_goes_on_holds_nobody_up_for_good(scene: Stage, role: str, point: int) -> None:
    """It may be stopped in a transaction, whose locks the others then wait for until the server ends it."""
    fault = Fault(f"stop {role}", role, signal.SIGSTOP, point=point, seconds=1e6)
    verdict = scene.play(Plan(-1 - point, run_seed=0, overlap=0, standby=False, faults=(fault,)))
    assert (verdict.result, verdict.notes, verdict.fired) == ("held", (), (fault.kind,))
