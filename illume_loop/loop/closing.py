"""The closing comparison of a run: the base against the active version, each at its own best decode.

It is measured at the gate of the last round, after the gate has decided and before the decision is recorded, so it is
done by units like all others. It draws all held-out prompts, with noise by which no gate has chosen a version.

It also says how far the run came: `share_of_way` is the gain as a share of the way from one draw of the base to the
base's own best of 8. That best draw is the one that the base itself scores highest, as the loop's judge does; all draws
are at the base's best decode.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from illume_db.evaluations import StoredEvaluation, find_evaluation
from illume_db.rounds import total_rounds
from illume_db.tables import ModelVersion, Round
from illume_db.units import NewUnit
from illume_db.versions import base_version
from illume_loop.errors import InconsistentRunError
from illume_loop.evals.statistics import paired_bootstrap, wilson_interval
from illume_loop.loop.context import RunContext
from illume_loop.loop.gate_plans import BEST_OF, BEST_OF_SAMPLES, CLOSING, HELDOUT, MeasurePlan
from illume_loop.loop.measures import UnitPlanner, best_decode
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import Sampling


def is_closing(context: RunContext, session: Session, round_: Round) -> bool:
    """Return whether the run ends with this round and its settings ask for the closing comparison."""
    settings = context.settings
    return settings.gate.closing and round_.index >= total_rounds(session, context.run_id, settings.run.rounds)


def closing_units(context: RunContext, session: Session, round_: Round, active: ModelVersion) -> list[NewUnit]:
    """Return the units that the closing comparison still needs; none if it is measured.

    `active` is the version that is active when the round has ended. If it is the base, nothing is measured.
    """
    base = base_version(session, context.run_id)
    if active.id == base.id:
        return []
    planner = UnitPlanner(session, context.plans, round_.index)
    decodes = {version: best_decode(session, context.run_id, context.plans, version.id) for version in (base, active)}
    for version, decode in decodes.items():
        if decode is None:
            planner.add_trials(version)
        else:
            planner.add(version, CLOSING, CLOSING, decode)
            for part in range(len(context.plans.best_of) if version is base else 0):
                planner.add(version, f"{BEST_OF}-{BEST_OF_SAMPLES}-{part + 1}", BEST_OF, decode, part)
    return planner.units


def closing_numbers(context: RunContext, session: Session, active: ModelVersion) -> dict[str, Any]:
    """Return the closing comparison as JSON. Without a version that replaced the base, it has only the names."""
    base = base_version(session, context.run_id)
    names = {"base": base.name, "active": active.name}
    if active.id == base.id:
        return names
    plans, gate = context.plans, context.settings.gate
    of_base, of_active = (_decode_of(context, session, version) for version in (base, active))
    before = _stored(session, base, HELDOUT, plans.closing.at(of_base)).passed
    after = _stored(session, active, HELDOUT, plans.closing.at(of_active)).passed
    seed = derived_seed(CLOSING, context.settings.run.seed)
    delta = paired_bootstrap(before, after, confidence=gate.confidence, resamples=gate.resamples, seed=seed)
    parts = [_stored(session, base, BEST_OF, plan.at(of_base)) for plan in plans.best_of]
    return {
        **names,
        "judge": plans.judge or "checker",
        "decodes": {"base": asdict(of_base), "active": asdict(of_active)},
        "heldout": {
            "base": asdict(wilson_interval(before, gate.confidence)),
            "active": asdict(wilson_interval(after, gate.confidence)),
            "delta": {"mean": delta.mean, "low": delta.low, "high": delta.high},
        },
        "best_of": best_of_numbers(parts, delta.mean),
    }


def best_of_numbers(parts: list[StoredEvaluation], gain: float) -> dict[str, Any]:
    """Return the shares of right images for one draw and for the best of several, and the share of the way between.

    `gain` is the closing comparison's. The share of the way is None if the best draw is no better than any draw.
    """
    drawn = [passed for part in parts for passed in part.passed]
    one = sum(drawn) / len(drawn)
    best = sum(part.value * len(part.passed) for part in parts) / len(drawn)
    return {
        "samples": BEST_OF_SAMPLES,
        "prompts": len(drawn) // BEST_OF_SAMPLES,
        "one": one,
        "best": best,
        "share_of_way": gain / (best - one) if best > one else None,
    }


def _decode_of(context: RunContext, session: Session, version: ModelVersion) -> Sampling:
    decode = best_decode(session, context.run_id, context.plans, version.id)
    if decode is None:
        raise InconsistentRunError(what=f"the best decode of {version.name} was to be known and is not")
    return decode


def _stored(session: Session, version: ModelVersion, suite: str, plan: MeasurePlan) -> StoredEvaluation:
    found = find_evaluation(session, version.id, suite, plan.sha256)
    if found is None:
        raise InconsistentRunError(what=f"the closing comparison of {version.name} was to be measured and is not")
    return found
