"""The result of curation that the manifest is written from, and the effect of people's verdicts on it. Pure."""

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
    """The result of a round's curation, before it is stored."""

    samples: list[SampleRow]
    """All samples of the round."""
    accepted: list[SampleRow]
    """The samples that this round accepted."""
    earlier: list[SampleRow]
    """The samples that earlier rounds accepted."""
    preferences: list[Preference]
    """The preferences of earlier rounds and of this one."""
    scores: Mapping[tuple[int, int], float]
    """The scores by (prompt position, sample index). People's verdicts have overruled the judge's."""
    people: Mapping[int, HumanVerdict]
    """The verdicts of people by sample id."""
    counts: dict[str, int]
    """The counts that are stored with the manifest and shown by `rounds show`."""
    values: dict[str, Any]
    """The columns of the round that change when it moves on."""


def people_found_wrong(people: Mapping[int, HumanVerdict], sample: SampleRow) -> bool:
    """Return whether people found that a sample does not show its prompt."""
    return sample.sample_id in people and not people[sample.sample_id].agrees


def is_uncontested(people: Mapping[int, HumanVerdict], better: SampleRow, worse: SampleRow | None) -> bool:
    """Return whether no person has found the better image wrong or the worse one right."""
    says_right = worse is not None and worse.sample_id in people and people[worse.sample_id].agrees
    return not people_found_wrong(people, better) and not says_right


def with_human_verdicts(
    scores: Mapping[tuple[int, int], float], reviewed: Mapping[tuple[int, int], bool], settings: Settings
) -> Mapping[tuple[int, int], float]:
    """Return the scores, with those of reviewed samples replaced by people's verdicts.

    A sample that people found right scores above all others by the margin of a pair. One that they found wrong scores
    below all others by that margin. If the assessor says yes or no, the scores are 1 and 0 instead.
    """
    if not reviewed:
        return scores
    if settings.assess.says_yes_or_no:
        return {**scores, **{key: float(agrees) for key, agrees in reviewed.items()}}
    margin = settings.curate.pair_margin
    values = [score for score in scores.values() if score == score] or [0.0]
    highest, lowest = max(values) + margin, min(values) - margin
    return {**scores, **{key: highest if agrees else lowest for key, agrees in reviewed.items()}}
