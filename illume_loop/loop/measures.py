"""Plan the units that measure a model version, and find the decode at which it is best.

Invariants:

- A measurement that is stored is planned in no later round. So a version's best decode is found once in a run.
- The best decode follows from the trials' results alone, whatever their order.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from illume_db.evaluations import best_trial, decode_trials, is_evaluated
from illume_db.tables import ModelVersion
from illume_db.units import NewUnit
from illume_loop.loop.gate_plans import DECODE, GatePlans
from illume_loop.protocols import Sampling


@dataclass(slots=True)
class UnitPlanner:
    """The units of the measurements of a round that are not stored yet."""

    session: Session
    plans: GatePlans
    round_index: int
    units: list[NewUnit] = field(default_factory=list)
    _planned: set[tuple[int, str, str]] = field(default_factory=set)

    def add(self, version: ModelVersion, key: str, suite: str, decode: Sampling | None = None, look: int = 0) -> None:
        """Plan a measurement of a version, at `decode` or else at the run's setting."""
        payload: dict[str, Any] = {"suite": suite, "version_id": version.id, "look": look}
        if decode is not None and decode != self.plans.setting:
            payload["decode"] = asdict(decode)
        plan = self.plans.of(payload, self.round_index)
        name = version.id, plan.suite, plan.sha256
        if name in self._planned or is_evaluated(self.session, *name):
            return
        self._planned.add(name)
        self.units.append(NewUnit("evaluate", f"evaluate/{key}/{version.name}", payload, num_items=plan.count))

    def add_trials(self, version: ModelVersion) -> None:
        """Plan the trials that find a version's best decode."""
        for number, trial in enumerate(self.plans.trials, start=1):
            self.add(version, f"decode-{number}", DECODE, trial.sampling)


def best_decode(session: Session, run_id: int, plans: GatePlans, version_id: int) -> Sampling | None:
    """Return the decode at which a version is best; None if a trial is missing.

    It is the grid's decode if the grid has only one.
    """
    if not plans.trials:
        return plans.grid[0]
    wanted = {trial.sha256 for trial in plans.trials}
    found = [one for one in decode_trials(session, run_id).get(version_id, []) if one.plan_sha256 in wanted]
    return Sampling(**best_trial(found, asdict(plans.setting)).decode) if len(found) == len(wanted) else None
