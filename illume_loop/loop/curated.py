"""What curation hands on to the manifest of its round, and what people's verdicts do to samples and scores. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from illume_db.curation import SampleRow
from illume_db.reviews import HumanVerdict
from illume_loop.settings import Settings

Preference = tuple[SampleRow, SampleRow]
"""Two samples of one prompt: the chosen one and the rejected one."""


@dataclass(slots=True)
class Curated:
    """The outcome of a round's curation, before anything of it is stored."""

    samples: list[SampleRow]
    """All of the round."""
    accepted: list[SampleRow]
    """Those of `samples` that this round accepted."""
    earlier: list[SampleRow]
    """Samples that earlier rounds accepted."""
    preferences: list[Preference]
    """Of earlier rounds and of this one."""
    scores: Mapping[tuple[int, int], float]
    """By (prompt position, sample index); people's verdicts have overruled the judge's."""
    people: Mapping[int, HumanVerdict]
    """Verdicts of people by sample id."""
    counts: dict[str, int]
    """Stored with the manifest and shown by `rounds show`."""
    values: dict[str, Any]
    """Columns of the round that change when it moves on."""


def found_wrong(people: Mapping[int, HumanVerdict], sample: SampleRow) -> bool:
    """Return whether people found that a sample does not show its prompt."""
    return sample.sample_id in people and not people[sample.sample_id].agrees


def stands(people: Mapping[int, HumanVerdict], better: SampleRow, worse: SampleRow | None) -> bool:
    """Whether nobody has found since that the better image is wrong, or the worse one right."""
    says_right = worse is not None and worse.sample_id in people and people[worse.sample_id].agrees
    return not found_wrong(people, better) and not says_right


def overruled(
    scores: Mapping[tuple[int, int], float], reviewed: Mapping[tuple[int, int], bool], settings: Settings
) -> Mapping[tuple[int, int], float]:
    """The scores with those of reviewed samples replaced: above all others, or below, by a pair's margin."""
    if not reviewed:
        return scores
    if settings.assess.says_yes_or_no:
        return {**scores, **{key: float(agrees) for key, agrees in reviewed.items()}}
    margin = settings.curate.pair_margin
    values = [score for score in scores.values() if score == score] or [0.0]
    highest, lowest = max(values) + margin, min(values) - margin
    return {**scores, **{key: highest if agrees else lowest for key, agrees in reviewed.items()}}
