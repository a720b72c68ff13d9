"""Route each step and each unit to the stage that does it.

A stage does not import another stage. If a step needs several, this module passes the result of one to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sqlalchemy.orm import Session

from illume_db.leases import Lease
from illume_db.rounds import round_at
from illume_db.tables import Round
from illume_loop.loop.context import RunContext
from illume_loop.loop.gate_plans import DRIFT
from illume_loop.loop.moves import give_up, move
from illume_loop.loop.preflight import PREFLIGHT, preflight_of_run, preflight_units
from illume_loop.loop.reconcile import Change, Curate, Decide, GiveUp, Move, PlanGate, PlanRound
from illume_loop.loop.stages.assess import assess
from illume_loop.loop.stages.calibrate import CALIBRATION, calibrating_units, fit_calibration_of_run
from illume_loop.loop.stages.curate import curate
from illume_loop.loop.stages.dialogues import dialogues
from illume_loop.loop.stages.evaluate import evaluate, measure_drift
from illume_loop.loop.stages.gate import decide, plan_gate
from illume_loop.loop.stages.manifest import write_manifest
from illume_loop.loop.stages.plan import plan_round
from illume_loop.loop.stages.rollouts import draw_rollouts, score_rollouts
from illume_loop.loop.stages.sample import sample
from illume_loop.loop.stages.train import train
from illume_loop.loop.stages.update import update
from illume_loop.loop.unit_inputs import Effect, OnItems

UnitFunction = Callable[[RunContext, Lease, OnItems], Effect]


def take_step(context: RunContext, session: Session, step: Change) -> None:
    """Take a step that only changes the database, within the caller's transaction."""
    if isinstance(step, PlanRound):
        _plan(context, session, step.index)
        return
    round_ = round_at(session, context.run_id, step.index)
    match step:
        case Move(target=target):
            move(context, session, round_, target)
        case Curate(plan_next=plan_next):
            if _curate(context, session, round_) and plan_next:
                _plan(context, session, round_.index + 1)
        case PlanGate():
            plan_gate(context, session, round_)
        case Decide():
            decide(context, session, round_)
        case GiveUp(kind=kind):
            give_up(context, session, round_, kind)


def unit_function(lease: Lease) -> UnitFunction:
    """Return the function that does a unit.

    Such a function reads the database, computes, and writes artifacts, which are named by their content. It returns the
    unit's effect on the database. So a unit that is killed leaves nothing behind that could disturb its next attempt.
    """
    if "update" in lease.payload:
        return OF_UPDATE[lease.kind]
    return OF_SUITE.get(lease.payload.get("suite", ""), OF_KIND[lease.kind])


OF_KIND: Mapping[str, UnitFunction] = {"sample": sample, "assess": assess, "train": train, "evaluate": evaluate}
OF_UPDATE: Mapping[str, UnitFunction] = {"sample": draw_rollouts, "assess": score_rollouts, "train": update}
"""The functions of units that belong to an update of reinforcement learning."""
OF_SUITE: Mapping[str, UnitFunction] = {
    CALIBRATION: lambda context, _, on_items: fit_calibration_of_run(context, on_items),
    DRIFT: measure_drift,
    PREFLIGHT: lambda context, *_: preflight_of_run(context),
}
"""The unit functions of suites that are none of the gate's."""


def _plan(context: RunContext, session: Session, index: int) -> None:
    before = preflight_units(context.settings, session, context.run_id)
    before += calibrating_units(context.settings, session, context.run_id)
    plan_round(context, session, index, before)


def _curate(context: RunContext, session: Session, round_: Round) -> bool:
    """Curate a round and write its manifest; return False if the round failed."""
    curated = curate(context, session, round_)
    if curated is None:
        return False
    assessments = dialogues(context, session, round_, curated) if context.settings.train.learns_assessments else []
    return write_manifest(context, session, round_, curated, assessments)
