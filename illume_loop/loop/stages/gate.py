"""The gate: it decides whether a candidate replaces its parent.

A candidate is promoted if all of these hold:

- The lower end of the paired interval of the held-out gain is above `min_gain`.
- Understanding is shown not to have lost the stated margin. The same holds for editing if rounds have edits.
- Diversity is at least the share `diversity_ratio` of the base's.
- The candidate has not drifted as a judge by more than allowed, because it would judge the next rounds.

Parent and candidate are compared each at its own best decode, which trials on train prompts find first. They are also
compared at the run's setting. That is told and decides nothing.

All guards compare with the run's base, at the run's setting. If they compared with the parent, every round could lose a
margin again.

The held-out gain is tested at several looks while it is being drawn. Drawing ends early if a guard objects or promotion
has become improbable. This only ever rejects a candidate, so it does not weaken the invariants.

Invariant: over all looks together, a candidate that gains no more than `min_gain` is promoted with a probability of at
most (1 - confidence) / 2. The guards' own invariant stands in loop/guards.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy.orm import Session

from illume_db.evaluations import StoredEvaluation, find_evaluation
from illume_db.judging import drift_of_round
from illume_db.rounds import add_decision
from illume_db.tables import Round
from illume_db.units import NewUnit, add_units
from illume_db.versions import base_version, version_of
from illume_loop.charts.numbers import decode as decode_in_words
from illume_loop.errors import InconsistentRunError
from illume_loop.evals.sequential import chance_of_crossing, critical_values
from illume_loop.evals.statistics import Interval, paired_bootstrap, paired_bootstrap_error, share, wilson_interval
from illume_loop.judge.agreement import JudgeDrift
from illume_loop.loop.closing import closing_numbers, closing_units, is_closing
from illume_loop.loop.context import RunContext
from illume_loop.loop.gate_plans import (
    DRIFT,
    DRIFT_SAMPLES,
    EDITING,
    HELDOUT,
    UNDERSTANDING,
    MeasurePlan,
    look_sizes,
)
from illume_loop.loop.guards import EDITING_MARGIN, compare_guard, diversity_objections, drift_objections
from illume_loop.loop.measures import UnitPlanner, best_decode
from illume_loop.loop.moves import move, note
from illume_loop.loop.promotion import active_of, candidate_of, conclude, settle
from illume_loop.loop.states import RoundState
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import Sampling
from illume_loop.settings import GateSettings

NO_UNDERSTANDING_GUARD = "understanding is not guarded, as the domain has no reading probes"

LEAST_CHANCE = 0.05
"""The chance of promotion below which no more is drawn."""


PLAIN = Sampling()


@dataclass(frozen=True, slots=True)
class Measured:
    """The measurements of one version.

    `heldout` has the outcomes at the version's best decode, in the order of the prompts; it is empty for the base.
    `understanding` has the outcomes of the forced choices, which are the same for all versions of a run; it is empty if
    the run does not guard understanding. `drift` is the candidate's drift as a judge, if it is measured. `editing` has
    the outcomes of held-out edits, if the run has edits. `decode` is the best decode. `at_setting` has the outcomes of
    the held-out draws at the run's setting.
    """

    heldout: Sequence[bool]
    understanding: Sequence[bool]
    diversity: float
    drift: JudgeDrift | None = None
    editing: Sequence[bool] = ()
    decode: Sampling = PLAIN
    at_setting: Sequence[bool] = ()


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's decision, the sentences that explain it, and the numbers behind it (JSON)."""

    passed: bool
    reasons: list[str]
    numbers: dict[str, Any]


def judge(
    base: Measured,
    parent: Measured,
    candidate: Measured,
    settings: GateSettings,
    seed: int,
    setting: Sampling = PLAIN,
) -> Judgement | None:
    """Compare a candidate with its parent on the same held-out prompts and seeds; return the gate's decision.

    `setting` is the decode of the run's setting. Returns None if the result is not clear yet and the next look has more
    prompts.
    """
    look = Look.of_size(len(candidate.heldout), settings)
    gain, error = look.gain(parent.heldout, candidate.heldout, settings, seed)
    losses = [
        compare_guard(name, of_base, of_candidate, margin, settings)
        for name, of_base, of_candidate, margin in (
            ("understanding", base.understanding, candidate.understanding, settings.understanding_margin),
            ("editing", base.editing, candidate.editing, EDITING_MARGIN),
        )
        if of_base
    ]
    guards = [objection for loss in losses for objection in loss.objections()]
    guards += diversity_objections(base.diversity, candidate.diversity, settings)
    guards += drift_objections(candidate.drift, settings) if candidate.drift else []
    objections = _gain_objection(gain, settings)
    if objections and not guards and look.is_early:
        chance = chance_of_crossing((gain.mean - settings.min_gain) / error, look.share, look.last_value)
        if chance >= LEAST_CHANCE:
            return None
        objections.append(f"stopped early: more prompts had a {100 * chance:.1f} % chance of changing the result")
    objections += guards
    is_tuned = {parent.decode, candidate.decode} != {setting}
    at_setting = gain
    reasons = [_gain_sentence(gain, look.of, _of_decodes(parent, candidate) if is_tuned else "")]
    if is_tuned and candidate.at_setting:
        at_setting, _ = look.gain(parent.at_setting, candidate.at_setting, settings, seed)
        reasons.append(_setting_sentence(at_setting, setting))
    reasons += objections
    if not candidate.understanding:
        reasons.append(NO_UNDERSTANDING_GUARD)
    numbers = _numbers(parent, candidate, gain, settings, seed)
    numbers["guards"] = {loss.name: loss.numbers() for loss in losses}
    numbers["looks"] = {"prompts": gain.n, "of": look.of}
    numbers["decodes"] = {"parent": asdict(parent.decode), "candidate": asdict(candidate.decode)}
    if candidate.at_setting:
        numbers["at_setting"] = _heldout_numbers(parent.at_setting, candidate.at_setting, at_setting, settings)
    return Judgement(not objections, reasons, numbers)


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the held-out draws: after `size` of `of` prompts, the gain has to exceed `value` standard errors."""

    size: int
    of: int
    value: float
    last_value: float

    @classmethod
    def of_size(cls, size: int, settings: GateSettings) -> Look:
        """Return the look that ends with `size` prompts."""
        sizes = look_sizes(settings)
        values = critical_values(tuple(one / sizes[-1] for one in sizes), (1 - settings.confidence) / 2)
        return cls(size, sizes[-1], values[sizes.index(size)], values[-1])

    @property
    def share(self) -> float:
        """The share of all prompts that are drawn by this look."""
        return self.size / self.of

    @property
    def is_early(self) -> bool:
        """True if another look has more prompts."""
        return self.size < self.of

    def gain(
        self, parent: Sequence[bool], candidate: Sequence[bool], settings: GateSettings, seed: int
    ) -> tuple[Interval, float]:
        """Return the gain with its interval, which holds for all looks together, and its standard error."""
        mean = (sum(candidate) - sum(parent)) / self.size
        error = _error(parent, candidate, settings, seed)
        return Interval(mean, mean - self.value * error, mean + self.value * error, self.size), error


def _error(parent: Sequence[bool], candidate: Sequence[bool], settings: GateSettings, seed: int) -> float:
    """Return the standard error of the gain, with two pairs added: one that improved and one that worsened.

    If few pairs changed, the bootstrap alone is too confident. Four changed pairs that all improved would promote a
    candidate, and that happens by chance in one of sixteen draws of equal models (Agresti and Min 2005 on matched
    pairs).
    """
    before, after = [*parent, False, True], [*candidate, True, False]
    return paired_bootstrap_error(before, after, resamples=settings.resamples, seed=seed)


def _gain_sentence(gain: Interval, num_prompts: int, of_decodes: str) -> str:
    early = f" after {gain.n} of {num_prompts} prompts" if gain.n < num_prompts else ""
    return f"heldout gain {_points(gain)}{early}{of_decodes}"


def _points(gain: Interval) -> str:
    return f"{100 * gain.mean:+.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"


def _of_decodes(parent: Measured, candidate: Measured) -> str:
    """Return the decodes of the comparison that decides."""
    if parent.decode == candidate.decode:
        return f" with both at {decode_in_words(asdict(parent.decode))}, each one's best decode"
    of_parent, of_candidate = (decode_in_words(asdict(one.decode)) for one in (parent, candidate))
    return f" with each at its best decode (parent: {of_parent}; candidate: {of_candidate})"


def _setting_sentence(gain: Interval, setting: Sampling) -> str:
    return f"with both at the run's setting ({decode_in_words(asdict(setting))}) {_points(gain)}, which does not decide"


def _gain_objection(gain: Interval, settings: GateSettings) -> list[str]:
    if gain.low > settings.min_gain:
        return []
    return [f"the lower end of the gain is not above {100 * settings.min_gain:.1f}"]


def _numbers(
    parent: Measured, candidate: Measured, gain: Interval, settings: GateSettings, seed: int
) -> dict[str, Any]:
    return {
        "heldout": _heldout_numbers(parent.heldout, candidate.heldout, gain, settings),
        "diversity": {"parent": parent.diversity, "candidate": candidate.diversity},
        "understanding": {
            "parent": share(parent.understanding) if parent.understanding else None,
            "candidate": share(candidate.understanding) if candidate.understanding else None,
        },
        "editing": _editing_numbers(parent, candidate, settings, seed) if candidate.editing else None,
        "judge_drift": asdict(candidate.drift) if candidate.drift else None,
    }


def _heldout_numbers(
    parent: Sequence[bool], candidate: Sequence[bool], gain: Interval, settings: GateSettings
) -> dict[str, Any]:
    return {
        "parent": asdict(wilson_interval(parent, settings.confidence)),
        "candidate": asdict(wilson_interval(candidate, settings.confidence)),
        "delta": {"mean": gain.mean, "low": gain.low, "high": gain.high},
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


def plan_gate(context: RunContext, session: Session, round_: Round) -> None:
    """Plan the gate's first look."""
    plan_look(context, session, round_, 0)
    move(context, session, round_, RoundState.GATING)


def plan_look(context: RunContext, session: Session, round_: Round, look: int) -> None:
    """Plan the units of a look: the held-out draws of parent and candidate, the guards, and the trials of decodes.

    Measurements that are stored already are left out. The base is measured by the guards only, unless it is the parent.
    The draws at a version's best decode are planned once its trials are done, so the first look is planned in two
    parts. It also measures the candidate's drift as a judge, if the settings limit it.
    """
    candidate = candidate_of(session, round_)
    compared = {round_.parent_version_id, candidate.id}
    planner = UnitPlanner(session, context.plans, round_.index)
    # The units go version by version, so that a worker with room for one model loads each version once.
    for version_id in sorted(compared | {base_version(session, context.run_id).id}):
        version = version_of(session, version_id)
        if version_id in compared:
            planner.add(version, f"{HELDOUT}-{look + 1}", HELDOUT, look=look)
            planner.add_trials(version)
            decode = best_decode(session, context.run_id, context.plans, version_id)
            if decode is not None:
                planner.add(version, f"best-{look + 1}", HELDOUT, decode, look)
        for suite in context.plans.guards:
            planner.add(version, suite, suite)
    if context.settings.gate.drift_margin and look == 0 and drift_of_round(session, round_.id) is None:
        payload = {"suite": DRIFT, "version_id": candidate.id, "look": look}
        num_items = min(DRIFT_SAMPLES, round_.num_samples)
        planner.units.append(NewUnit("evaluate", f"evaluate/drift/{candidate.name}", payload, num_items=num_items))
    add_units(session, round_.id, planner.units)


def decide(context: RunContext, session: Session, round_: Round) -> None:
    """Promote or reject the candidate, with reasons; plan the next look instead if the result is not clear yet.

    In the run's last round, the closing comparison is measured before the decision is recorded.
    """
    candidate = candidate_of(session, round_)
    compared = round_.parent_version_id, candidate.id
    decodes = _decodes(context, session, compared)
    looks = _looks(context, session, round_, compared, decodes)
    judgement = _judgement(context, session, round_, compared, decodes, looks) if looks else None
    if judgement is None:
        plan_look(context, session, round_, len(looks))
        told = (
            f"not clear after {len(looks)} looks at the gate" if looks else _decodes_found(session, compared, decodes)
        )
        note(context, session, round_, "looked", f"round {round_.index}: {told}")
        return
    conclusion = conclude(
        session, context.run_id, round_, passed=judgement.passed, auto_promote=context.settings.gate.auto_promote
    )
    numbers = judgement.numbers | {"compared_by": context.plans.compared_by}
    if is_closing(context, session, round_):
        active = candidate if conclusion.replaces is not None else active_of(session, context.run_id)
        units = closing_units(context, session, round_, active)
        if units:
            add_units(session, round_.id, units)
            about = f"the gate has decided; {active.name} is compared with the base on all held-out prompts"
            note(context, session, round_, "closing", f"round {round_.index}: {about}")
            return
        numbers["closing"] = closing_numbers(context, session, active)
    reasons = [*judgement.reasons, *conclusion.reasons]
    add_decision(
        session, round_.id, decision=conclusion.target.value, reasons=reasons, numbers=numbers, at=context.clock()
    )
    move(context, session, round_, conclusion.target)
    settle(session, candidate, conclusion, passed=judgement.passed)
    for reason in conclusion.reasons:
        note(context, session, round_, "decided", f"round {round_.index}: {reason}")


_Pair = tuple[StoredEvaluation, StoredEvaluation]
"""The held-out draws of (parent, candidate)."""


@dataclass(frozen=True, slots=True)
class _Looked:
    """The held-out draws of one look, at the best decodes and at the run's setting."""

    best: _Pair
    at_setting: _Pair


def _decodes(context: RunContext, session: Session, compared: tuple[int, int]) -> list[Sampling]:
    """Return the best decodes of (parent, candidate); fewer if trials are missing."""
    found = [best_decode(session, context.run_id, context.plans, version_id) for version_id in compared]
    return [decode for decode in found if decode is not None]


def _decodes_found(session: Session, compared: tuple[int, int], decodes: Sequence[Sampling]) -> str:
    names = [version_of(session, version_id).name for version_id in compared]
    if len(decodes) < len(names):
        # A round that an older release brought to the gate has no trials yet.
        return "the best decodes are not known yet"
    told = (f"{name} at {decode_in_words(asdict(decode))}" for name, decode in zip(names, decodes, strict=True))
    return f"on train prompts, the best is {' and '.join(told)}"


def _looks(
    context: RunContext, session: Session, round_: Round, compared: tuple[int, int], decodes: Sequence[Sampling]
) -> list[_Looked]:
    """Return the held-out draws by look, up to the first look that is not stored as a whole."""
    found: list[_Looked] = []
    for plan in context.plans.looks(round_.index) if len(decodes) == len(compared) else ():
        best = _pair(session, compared, [plan.at(decode) for decode in decodes])
        at_setting = _pair(session, compared, [plan, plan])
        if best is None or at_setting is None:
            break
        found.append(_Looked(best, at_setting))
    return found


def _pair(session: Session, version_ids: tuple[int, int], plans: Sequence[MeasurePlan]) -> _Pair | None:
    parent, candidate = (
        find_evaluation(session, version_id, HELDOUT, plan.sha256)
        for version_id, plan in zip(version_ids, plans, strict=True)
    )
    return None if parent is None or candidate is None else (parent, candidate)


def _judgement(
    context: RunContext,
    session: Session,
    round_: Round,
    compared: tuple[int, int],
    decodes: Sequence[Sampling],
    looks: Sequence[_Looked],
) -> Judgement | None:
    found = drift_of_round(session, round_.id)
    drift = JudgeDrift(found.num_samples, found.shift, found.auc, found.num_failed) if found else None
    parent, candidate = (
        replace(
            _measured(context, session, version_id),
            heldout=[passed for look in looks for passed in look.best[side].passed],
            at_setting=[passed for look in looks for passed in look.at_setting[side].passed],
            decode=decode,
        )
        for side, (version_id, decode) in enumerate(zip(compared, decodes, strict=True))
    )
    return judge(
        _measured(context, session, base_version(session, context.run_id).id),
        parent,
        replace(candidate, drift=drift),
        context.settings.gate,
        derived_seed("gate", context.settings.run.seed, round_.index),
        context.plans.setting,
    )


def _measured(context: RunContext, session: Session, version_id: int) -> Measured:
    """Return what the guards measured of a version."""
    found = {}
    for suite, plan in context.plans.guards.items():
        evaluation = find_evaluation(session, version_id, suite, plan.sha256)
        if evaluation is None:
            name = version_of(session, version_id).name
            raise InconsistentRunError(what=f"the units that evaluate {name} are done, and {suite} was not measured")
        found[suite] = evaluation
    read, edited = (found[suite].passed if suite in found else [] for suite in (UNDERSTANDING, EDITING))
    return Measured([], read, found["diversity"].value, editing=edited)
