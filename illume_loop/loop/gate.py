"""Whether a candidate replaces its parent. Pure.

Promotion needs the lower end of the paired interval of the held-out gain above `min_gain`, and understanding and
diversity not worse than the stated margins. Both guards compare with the run's base: with the parent as the measure,
every round could lose a margin again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from illume_loop.config import GateSettings
from illume_loop.evals.statistics import Interval, paired_bootstrap, wilson_interval


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one version; held-out outcomes in the order of the prompts."""

    heldout: Sequence[bool]
    understanding: float
    diversity: float


@dataclass(frozen=True, slots=True)
class Judgement:
    """The gate's decision, the sentences that explain it, and the numbers behind it (JSON)."""

    passed: bool
    reasons: list[str]
    numbers: dict[str, Any]


def judge(base: Measured, parent: Measured, candidate: Measured, settings: GateSettings, seed: int) -> Judgement:
    """Compare a candidate with its parent on the same held-out prompts and seeds."""
    gain = paired_bootstrap(
        parent.heldout,
        candidate.heldout,
        confidence=settings.confidence,
        resamples=settings.resamples,
        seed=seed,
    )
    objections = [
        *_gain_objection(gain, settings),
        *_understanding_objection(base, candidate, settings),
        *_diversity_objection(base, candidate, settings),
    ]
    return Judgement(not objections, [_gain_sentence(gain), *objections], _numbers(parent, candidate, gain, settings))


def _gain_sentence(gain: Interval) -> str:
    return f"heldout gain {100 * gain.mean:+.1f} [{100 * gain.low:.1f}, {100 * gain.high:.1f}]"


def _gain_objection(gain: Interval, settings: GateSettings) -> list[str]:
    if gain.low > settings.min_gain:
        return []
    return [f"the lower end of the gain is not above {100 * settings.min_gain:.1f}"]


def _understanding_objection(base: Measured, candidate: Measured, settings: GateSettings) -> list[str]:
    if candidate.understanding >= base.understanding - settings.understanding_margin:
        return []
    return [
        f"understanding fell from the base's {100 * base.understanding:.1f} to {100 * candidate.understanding:.1f}, "
        f"more than {100 * settings.understanding_margin:.1f}"
    ]


def _diversity_objection(base: Measured, candidate: Measured, settings: GateSettings) -> list[str]:
    if candidate.diversity >= settings.diversity_ratio * base.diversity:
        return []
    return [
        f"diversity fell from the base's {base.diversity:.2f} to {candidate.diversity:.2f}, "
        f"below {settings.diversity_ratio:.2f} of it"
    ]


def _numbers(parent: Measured, candidate: Measured, gain: Interval, settings: GateSettings) -> dict[str, Any]:
    return {
        "heldout": {
            "parent": asdict(wilson_interval(parent.heldout, settings.confidence)),
            "candidate": asdict(wilson_interval(candidate.heldout, settings.confidence)),
            "delta": {"mean": gain.mean, "low": gain.low, "high": gain.high},
        },
        "diversity": {"parent": parent.diversity, "candidate": candidate.diversity},
        "understanding": {"parent": parent.understanding, "candidate": candidate.understanding},
    }
