"""What one round adds to all that was ever accepted: samples, preferences, and counts of the rest. Pure.

People overrule the judge: what they found right is accepted, what they found wrong is not, whatever it was scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from illume_db.curation import SampleRow
from illume_loop.config import Settings
from illume_loop.loop.curate import Scored, accept
from illume_loop.loop.manifest import Preference
from illume_loop.loop.pairs import clean_pairs, without_near_duplicates

WHOLLY_RIGHT = 1.0
"""An assessor that says yes or no (the checker, a teacher) accepts nothing that fails, however few pass."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected, in the order of the samples; `counts` are those of `rounds show`."""

    accepted: list[SampleRow]
    preferences: list[Preference]
    counts: dict[str, int]


def select(
    samples: Sequence[SampleRow],
    scores: Mapping[tuple[int, int], float],
    earlier: Sequence[SampleRow],
    settings: Settings,
    reviewed: Mapping[tuple[int, int], bool] | None = None,
) -> Selection:
    """Select from a round's samples by the scores of those that have one; `earlier` were accepted by earlier rounds.

    `reviewed` are the samples that people found right or wrong.
    """
    reviewed = reviewed or {}
    least = settings.curate.min_score
    floor = max(least, WHOLLY_RIGHT) if settings.assess.says_yes_or_no else least
    judged = [
        Scored(*sample.key, scores.get(sample.key), sample.category)
        for sample in samples
        if reviewed.get(sample.key) is not False
    ]
    right = {key for key, agrees in reviewed.items() if agrees}
    best = set(accept(judged, settings.curate, floor)) | right
    scores = overruled(scores, reviewed, settings)
    scored = [Scored(*sample.key, scores.get(sample.key), sample.category) for sample in samples]
    accepted = without_near_duplicates(
        [sample for sample in samples if sample.key in best], earlier, scores, settings.curate.duplicate_share
    )
    counts = {"near_duplicates": len(best) - len(accepted)}
    if reviewed:
        counts["reviewed"] = len(reviewed)
    if not settings.train.learns_from_pairs:
        return Selection(accepted, [], counts)
    keys = {sample.key for sample in accepted}
    # A near duplicate of an accepted image is no opposite of it either.
    sides = [sample for sample in scored if sample.key in keys or sample.key not in best]
    pairs, of_pairs = clean_pairs(sides, keys, settings.curate)
    by_key = {sample.key: sample for sample in samples}
    return Selection(accepted, [(by_key[chosen], by_key[rejected]) for chosen, rejected in pairs], counts | of_pairs)


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
