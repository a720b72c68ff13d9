"""The gate: it decides whether a candidate replaces its parent.

A candidate is promoted if all of these hold:

- The lower end of the paired interval of the held-out gain is above `min_gain`.
- Understanding is shown not to have lost the stated margin. The same holds for editing if rounds have edits.
- Diversity is at least the share `diversity_ratio` of the base's.
- The candidate has not drifted as a judge by more than allowed, because it would judge the next rounds.

All guards compare with the run's base. If they compared with the parent, every round could lose a margin again.

The held-out gain is tested at several looks while it is being drawn. Drawing ends early if a guard objects or promotion
has become improbable. This only ever rejects a candidate, so it does not weaken the invariants.

Understanding and editing are compared item by item with the base's outcomes on the same items. There may be too few
items to exclude the margin even if no outcome changed. Then the shares are compared, and the numbers say that nothing
was tested.

Invariants:

- Over all looks together, a candidate that gains no more than `min_gain` is promoted with a probability of at most
  (1 - confidence) / 2.
- A candidate that has lost the margin passes a tested guard with a probability of at most (1 - confidence) / 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from illume_db.evaluations import StoredEvaluation, find_evaluation
from illume_db.judging import drift_of_round
from illume_db.rounds import add_decision
from illume_db.tables import Round
from illume_db.units import NewUnit, add_units
from illume_db.versions import base_version, version_of
from illume_loop.errors import InconsistentRunError
from illume_loop.evals.noninferiority import PairedLoss, can_exclude_loss, items_for, paired_loss
from illume_loop.evals.sequential import chance_of_crossing, critical_values
from illume_loop.evals.statistics import Interval, paired_bootstrap, paired_bootstrap_error, wilson_interval
from illume_loop.judge.agreement import JudgeDrift
from illume_loop.loop.context import RunContext
from illume_loop.loop.gate_plans import DRIFT, DRIFT_SAMPLES, EDITING, UNDERSTANDING, look_sizes
from illume_loop.loop.moves import move, note
from illume_loop.loop.promotion import candidate_of, conclude, settle
from illume_loop.loop.states import RoundState
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.settings import GateSettings

EDITING_MARGIN = 0.08
"""The loss in the share of right held-out edits that has to be excluded.

It is larger than the default margin of understanding, because the outcome of an edit changes by chance more often than
that of a reading."""

NO_UNDERSTANDING_GUARD = "understanding is not guarded, as the domain has no reading probes"

LEAST_CHANCE = 0.05
"""The chance of promotion below which no more is drawn."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one version.

    `heldout` has the outcomes in the order of the prompts; it is empty for the base. `understanding` has the outcomes
    of the forced choices, which are the same for all versions of a run; it is empty if the run does not guard
    understanding. `drift` is the candidate's drift as a judge, if it is measured. `editing` has the outcomes of
    held-out edits, if the run has edits.
    """

    heldout: Sequence[bool]
    understanding: Sequence[bool]
    diversity: float
    drift: JudgeDrift | None = None
    editing: Sequence[bool] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's decision, the sentences that explain it, and the numbers behind it (JSON)."""

    passed: bool
    reasons: list[str]
    numbers: dict[str, Any]


def judge(base: Measured, parent: Measured, candidate: Measured, settings: GateSettings, seed: int) -> Judgement | None:
    """Compare a candidate with its parent on the same held-out prompts and seeds; return the gate's decision.

    Returns None if the result is not clear yet and the next look has more prompts.
    """
    sizes = look_sizes(settings)
    look = sizes.index(len(candidate.heldout))
    shares = tuple(size / sizes[-1] for size in sizes)
    values = critical_values(shares, (1 - settings.confidence) / 2)
    mean = (sum(candidate.heldout) - sum(parent.heldout)) / sizes[look]
    error = _error(parent.heldout, candidate.heldout, settings, seed)
    gain = Interval(mean, mean - values[look] * error, mean + values[look] * error, sizes[look])
    losses = [
        compare_guard(name, of_base, of_candidate, margin, settings)
        for name, of_base, of_candidate, margin in (
            ("understanding", base.understanding, candidate.understanding, settings.understanding_margin),
            ("editing", base.editing, candidate.editing, EDITING_MARGIN),
        )
        if of_base
    ]
    guards = [objection for loss in losses for objection in loss.objections()]
    guards += _diversity_objection(base, candidate, settings)
    guards += _drift_objections(candidate.drift, settings) if candidate.drift else []
    objections = _gain_objection(gain, settings)
    if objections and not guards and look + 1 < len(sizes):
        chance = chance_of_crossing((mean - settings.min_gain) / error, shares[look], values[-1])
        if chance >= LEAST_CHANCE:
            return None
        objections.append(f"more draws would change that with a chance of {100 * chance:.1f} % only")
    objections += guards
    reasons = [_gain_sentence(gain, sizes[-1]), *objections]
    if not candidate.understanding:
        reasons.append(NO_UNDERSTANDING_GUARD)
    numbers = _numbers(parent, candidate, gain, settings, seed)
    numbers["guards"] = {loss.name: loss.numbers() for loss in losses}
    return Judgement(not objections, reasons, numbers)


def _error(parent: Sequence[bool], candidate: Sequence[bool], settings: GateSettings, seed: int) -> float:
    """Return the standard error of the gain, with two pairs added: one that improved and one that worsened.

    If few pairs changed, the bootstrap alone is too confident. Four changed pairs that all improved would promote a
    candidate, and that happens by chance in one of sixteen draws of equal models (Agresti and Min 2005 on matched
    pairs).
    """
    before, after = [*parent, False, True], [*candidate, True, False]
    return paired_bootstrap_error(before, after, resamples=settings.resamples, seed=seed)


def _gain_sentence(gain: Interval, num_prompts: int) -> str:
    early = f" after {gain.n} of {num_prompts} prompts" if gain.n < num_prompts else ""
    return f"heldout gain {100 * gain.mean:+.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]{early}"


def _gain_objection(gain: Interval, settings: GateSettings) -> list[str]:
    if gain.low > settings.min_gain:
        return []
    return [f"the lower end of the gain is not above {100 * settings.min_gain:.1f}"]


def _diversity_objection(base: Measured, candidate: Measured, settings: GateSettings) -> list[str]:
    if candidate.diversity >= settings.diversity_ratio * base.diversity:
        return []
    return [
        f"diversity fell from the base's {base.diversity:.2f} to {candidate.diversity:.2f}, "
        f"below {settings.diversity_ratio:.2f} of it"
    ]


def _drift_objections(drift: JudgeDrift, settings: GateSettings) -> list[str]:
    objections = []
    if drift.num_failed:
        objections.append(f"it could not judge {drift.num_failed} samples that the frozen judge could")
    if not abs(drift.shift) <= settings.drift_margin:
        objections.append(
            f"its judgement drifted by {drift.shift:+.2f} in log-odds from the frozen judge's, "
            f"more than {settings.drift_margin:.2f}"
        )
    if drift.auc is not None and not drift.auc >= settings.drift_auc:
        objections.append(
            f"its judgement agrees with the frozen judge's by an AUC of {drift.auc:.3f}, below {settings.drift_auc:.3f}"
        )
    return objections


def _numbers(
    parent: Measured, candidate: Measured, gain: Interval, settings: GateSettings, seed: int
) -> dict[str, Any]:
    return {
        "heldout": {
            "parent": asdict(wilson_interval(parent.heldout, settings.confidence)),
            "candidate": asdict(wilson_interval(candidate.heldout, settings.confidence)),
            "delta": {"mean": gain.mean, "low": gain.low, "high": gain.high},
        },
        "diversity": {"parent": parent.diversity, "candidate": candidate.diversity},
        "understanding": {
            "parent": share(parent.understanding) if parent.understanding else None,
            "candidate": share(candidate.understanding) if candidate.understanding else None,
        },
        "editing": _editing_numbers(parent, candidate, settings, seed) if candidate.editing else None,
        "judge_drift": asdict(candidate.drift) if candidate.drift else None,
    }


def _editing_numbers(parent: Measured, candidate: Measured, settings: GateSettings, seed: int) -> dict[str, Any]:
    difference = paired_bootstrap(
        parent.editing, candidate.editing, confidence=settings.confidence, resamples=settings.resamples, seed=seed
    )
    return {
        "parent": asdict(wilson_interval(parent.editing, settings.confidence)),
        "candidate": asdict(wilson_interval(candidate.editing, settings.confidence)),
        "delta": {"mean": difference.mean, "low": difference.low, "high": difference.high},
    }


@dataclass(frozen=True, slots=True)
class GuardResult:
    """The result of a guard that compares a candidate's outcomes with those of the base."""

    name: str
    base_share: float
    loss: PairedLoss
    margin: float
    error: float

    @property
    def tested(self) -> bool:
        """True if there are enough items to exclude the margin when no outcome changes."""
        return can_exclude_loss(self.margin, self.loss.n, self.error)

    @property
    def passed(self) -> bool:
        """True if a loss of the margin is excluded.

        With too few items to test, it is True if the share fell by no more than the margin. A margin of 1 allows every
        loss.
        """
        if self.margin >= 1.0:
            return True
        return self.loss.low > -self.margin if self.tested else self.loss.mean >= -self.margin

    def objections(self) -> Iterator[str]:
        """Yield why the candidate cannot be promoted, if it cannot."""
        if self.passed:
            return
        change = f"{100 * self.loss.mean:+.1f} points from the base's {100 * self.base_share:.1f}"
        if not self.tested:
            yield f"{self.name} changed by {change}, a loss of more than {100 * self.margin:.1f}"
            return
        told = (
            f"{self.name} may have lost {100 * self.margin:.1f} points or more: it changed by {change} over "
            f"{self.loss.n} items, and the test excludes losses beyond {-100 * self.loss.low:.1f} only"
        )
        needed = items_for(self.margin, (self.loss.lost + self.loss.gained) / self.loss.n, self.error)
        is_within = self.loss.mean > -self.margin / 2
        yield f"{told}; gate.probe_items = {needed} would tell" if is_within and needed > self.loss.n else told

    def numbers(self) -> dict[str, Any]:
        """Return the result as JSON; the change, its lower bound and the margin are shares."""
        return {
            "mean": self.loss.mean,
            "low": self.loss.low,
            "margin": self.margin,
            "n": self.loss.n,
            "lost": self.loss.lost,
            "gained": self.loss.gained,
            "tested": self.tested,
            "passed": self.passed,
        }


def compare_guard(
    name: str, base: Sequence[bool], candidate: Sequence[bool], margin: float, settings: GateSettings
) -> GuardResult:
    """Compare a candidate's outcomes with those of the run's base on the same items."""
    error = (1 - settings.confidence) / 2
    return GuardResult(name, share(base), paired_loss(base, candidate, error), margin, error)


def share(outcomes: Sequence[bool]) -> float:
    """Return the share of true outcomes."""
    return sum(outcomes) / len(outcomes)


def plan_gate(context: RunContext, session: Session, round_: Round) -> None:
    """Plan the gate's first look."""
    plan_look(context, session, round_, 0)
    move(context, session, round_, RoundState.GATING)


def plan_look(context: RunContext, session: Session, round_: Round, look: int) -> None:
    """Plan the units of a look: the held-out draws of parent and candidate, and the guards.

    Measurements that are stored already are left out. The base is measured by the guards only, unless it is the parent.
    The first look also measures the candidate's drift as a judge, if the settings limit it.
    """
    candidate = candidate_of(session, round_)
    compared = {round_.parent_version_id, candidate.id}
    units = []
    # The units go version by version, so that a worker with room for one model loads each version once.
    for version_id in sorted(compared | {base_version(session, context.run_id).id}):
        name = version_of(session, version_id).name
        for suite in ("heldout", *context.plans.guards) if version_id in compared else context.plans.guards:
            plan = context.plans.of(suite, round_.index, look)
            if find_evaluation(session, version_id, suite, plan.sha256) is None:
                part = f"{suite}-{look + 1}" if suite == "heldout" else suite
                payload = {"suite": suite, "version_id": version_id, "look": look}
                units.append(NewUnit("evaluate", f"evaluate/{part}/{name}", payload, num_items=plan.count))
    if context.settings.gate.drift_margin and look == 0 and drift_of_round(session, round_.id) is None:
        payload = {"suite": DRIFT, "version_id": candidate.id, "look": look}
        num_items = min(DRIFT_SAMPLES, round_.num_samples)
        units.append(NewUnit("evaluate", f"evaluate/drift/{candidate.name}", payload, num_items=num_items))
    add_units(session, round_.id, units)


def decide(context: RunContext, session: Session, round_: Round) -> None:
    """Promote or reject the candidate, with reasons; plan the next look instead if the result is not clear yet."""
    candidate = candidate_of(session, round_)
    looks = _looks(context, session, round_)
    # A round that an older release brought to the gate may have no look yet.
    judgement = _judgement(context, session, round_, looks) if looks else None
    if judgement is None:
        plan_look(context, session, round_, len(looks))
        note(
            context, session, round_, "looked", f"round {round_.index}: not clear after {len(looks)} looks at the gate"
        )
        return
    conclusion = conclude(
        session, context.run_id, round_, passed=judgement.passed, auto_promote=context.settings.gate.auto_promote
    )
    reasons = [*judgement.reasons, *conclusion.reasons]
    numbers = judgement.numbers | {"compared_by": context.plans.compared_by(round_.index)}
    add_decision(
        session, round_.id, decision=conclusion.target.value, reasons=reasons, numbers=numbers, at=context.clock()
    )
    move(context, session, round_, conclusion.target)
    settle(session, candidate, conclusion, passed=judgement.passed)
    for reason in conclusion.reasons:
        note(context, session, round_, "decided", f"round {round_.index}: {reason}")


def _looks(context: RunContext, session: Session, round_: Round) -> list[tuple[StoredEvaluation, StoredEvaluation]]:
    """Return the held-out draws of (parent, candidate) by look, up to the first look that is not stored for both."""
    candidate_id = candidate_of(session, round_).id
    found = []
    for plan in context.plans.looks(round_.index):
        parent = find_evaluation(session, round_.parent_version_id, "heldout", plan.sha256)
        candidate = find_evaluation(session, candidate_id, "heldout", plan.sha256)
        if parent is None or candidate is None:
            break
        found.append((parent, candidate))
    return found


def _judgement(
    context: RunContext, session: Session, round_: Round, looks: Sequence[tuple[StoredEvaluation, StoredEvaluation]]
) -> Judgement | None:
    before = [passed for parent, _ in looks for passed in parent.passed]
    after = [passed for _, candidate in looks for passed in candidate.passed]
    found = drift_of_round(session, round_.id)
    drift = JudgeDrift(found.num_samples, found.shift, found.auc, found.num_failed) if found else None
    candidate = _measured(context, session, candidate_of(session, round_).id, after)
    return judge(
        _measured(context, session, base_version(session, context.run_id).id, []),
        _measured(context, session, round_.parent_version_id, before),
        replace(candidate, drift=drift),
        context.settings.gate,
        derived_seed("gate", context.settings.run.seed, round_.index),
    )


def _measured(context: RunContext, session: Session, version_id: int, heldout: Sequence[bool]) -> Measured:
    found = {}
    for suite, plan in context.plans.guards.items():
        evaluation = find_evaluation(session, version_id, suite, plan.sha256)
        if evaluation is None:
            name = version_of(session, version_id).name
            raise InconsistentRunError(what=f"the units that evaluate {name} are done, and {suite} was not measured")
        found[suite] = evaluation
    read, edited = (found[suite].passed if suite in found else [] for suite in (UNDERSTANDING, EDITING))
    return Measured(heldout, read, found["diversity"].value, editing=edited)
