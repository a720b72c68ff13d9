"""Whether a candidate replaces its parent. Pure.

Promotion needs the lower end of the paired interval of the held-out gain above `min_gain`; understanding (and editing,
where rounds have edits) shown not to have lost the stated margin; diversity above its share of the base's; and no alarm
that the candidate has drifted as a judge (the next rounds would be judged by it). All guards compare with the run's
base: with the parent as the measure, every round could lose a margin again.

The held-out gain is looked at while it is being drawn. Guarantee: over all looks together, a candidate that gains no
more than `min_gain` is promoted with a probability of at most (1 - confidence) / 2. Where a guard objects, or where
promotion has become improbable, no more is drawn; that only ever rejects, so it costs nothing of the guarantee.

Understanding and editing are compared item by item with the base's outcomes on the same items. Guarantee: a candidate
that has lost the margin passes with a probability of at most (1 - confidence) / 2. Of too few items for that, even if
no outcome changed, the shares themselves are compared, and the numbers say that nothing was tested.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from illume_loop.assess.drift import JudgeDrift
from illume_loop.config import GateSettings
from illume_loop.evals.sequential import chance_of_crossing, critical_values
from illume_loop.evals.statistics import Interval, paired_bootstrap, paired_bootstrap_error, wilson_interval
from illume_loop.loop.guards import guarded, share

MOST_LOOKS = 3
LEAST_LOOK = 64
"""Draws below which the mean is not yet nearly normal, and which are too few to look at before the end."""
EDITING_MARGIN = 0.08
"""The loss of held-out edits that are right which has to be excluded; whether an edit succeeds changes by chance more
often than what a model reads."""
NO_UNDERSTANDING_GUARD = "understanding is not guarded, as the domain has no reading probes"
HOPELESS = 0.05
"""Chance of promotion below which no more is drawn."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one version; held-out outcomes in the order of the prompts, none for the base.

    `understanding` has the outcomes of the forced choices, the same for all versions of a run; there are none,
    and no such guard, where the domain has no reading probes. `drift` is the candidate's as a judge, where it is
    measured; `editing` the outcomes of held-out edits, where a run has edits.
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


def look_sizes(settings: GateSettings) -> tuple[int, ...]:
    """How many held-out prompts are drawn by each look: a quarter, a half, all. Of few prompts, fewer looks."""
    parts = (-(-settings.heldout_prompts // 2**power) for power in range(MOST_LOOKS - 1, 0, -1))
    return (*(size for size in parts if size >= LEAST_LOOK), settings.heldout_prompts)


def judge(base: Measured, parent: Measured, candidate: Measured, settings: GateSettings, seed: int) -> Judgement | None:
    """Compare a candidate with its parent on the same held-out prompts and seeds, as many as a look has.

    None where it is not clear yet and the next look has more.
    """
    sizes = look_sizes(settings)
    look = sizes.index(len(candidate.heldout))
    shares = tuple(size / sizes[-1] for size in sizes)
    values = critical_values(shares, (1 - settings.confidence) / 2)
    mean = (sum(candidate.heldout) - sum(parent.heldout)) / sizes[look]
    error = _error(parent.heldout, candidate.heldout, settings, seed)
    gain = Interval(mean, mean - values[look] * error, mean + values[look] * error, sizes[look])
    losses = [
        guarded(name, of_base, of_candidate, margin, settings)
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
        if chance >= HOPELESS:
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
    """The standard error of the gain, with one pair more that changed for the better and one for the worse.

    Where few pairs changed, the bootstrap knows too little of how they could have: four that all changed for the better
    would promote, and every sixteenth draw of equals is so (Agresti and Min 2005 on matched pairs).
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
