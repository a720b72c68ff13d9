"""Preferences between samples of one prompt, and accepted images that are nearly the same. Pure.

A pair is clean when its chosen image was accepted, its rejected one was not, and their scores differ by the margin at
least. Pairs that are not clean are counted and dropped; so are clean ones above a prompt's limit. Best and worst meet
first, and an image is rejected once at most.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from illume_db.curation import SampleRow
from illume_loop.config import CurateSettings
from illume_loop.loop.curate import Scored

Key = tuple[int, int]
Scores = Mapping[Key, float]
"""The score of each sample that has one, by (prompt position, sample index)."""


def clean_pairs(
    samples: Sequence[Scored], accepted: Collection[Key], settings: CurateSettings
) -> tuple[list[tuple[Key, Key]], dict[str, int]]:
    """The (chosen, rejected) of every prompt, in order, and how many pairs are what.

    Counted are all pairs of an accepted sample and another of its prompt: `pairs` (made), `over_limit` (clean, above
    the prompt's limit), `ambiguous` (closer than the margin, or the wrong way round) and `ties`. Samples without a
    score are on neither side.
    """
    prompts: defaultdict[int, list[Scored]] = defaultdict(list)
    for sample in samples:
        if sample.score is not None and sample.score == sample.score:
            prompts[sample.position].append(sample)
    counts = Counter({"pairs": 0, "over_limit": 0, "ambiguous": 0, "ties": 0})
    found: list[tuple[Key, Key]] = []
    for _, of_prompt in sorted(prompts.items()):
        best_first = sorted(of_prompt, key=lambda s: (-(s.score or 0.0), s.key))
        chosen = [sample for sample in best_first if sample.key in accepted]
        others = [sample for sample in best_first[::-1] if sample.key not in accepted]
        clean = 0
        for better in chosen:
            for worse in others:
                kind = _kind(better, worse, settings.pair_margin)
                counts[kind] += kind != "pairs"
                clean += kind == "pairs"
        made = _matched(chosen, others, settings)
        counts["pairs"] += len(made)
        counts["over_limit"] += clean - len(made)
        found += sorted(made)
    return found, dict(counts)


def without_near_duplicates(
    accepted: Sequence[SampleRow], earlier: Iterable[SampleRow], scores: Scores, share: float
) -> list[SampleRow]:
    """The accepted samples, in order, without those of whose ids more than `share` are those of a better one.

    Compared are images of one prompt, position by position; `earlier` are accepted already, and count as better.
    """
    kept: defaultdict[str, list[SampleRow]] = defaultdict(list)
    for sample in earlier:
        kept[sample.text].append(sample)
    for sample in sorted(accepted, key=lambda s: (-scores[s.position, s.sample_index], s.position, s.sample_index)):
        if not any(np.mean(sample.image_ids == other.image_ids) > share for other in kept[sample.text]):
            kept[sample.text].append(sample)
    ids = {sample.sample_id for of_prompt in kept.values() for sample in of_prompt}
    return [sample for sample in accepted if sample.sample_id in ids]


def _matched(chosen: Sequence[Scored], others: Sequence[Scored], settings: CurateSettings) -> list[tuple[Key, Key]]:
    """Best with worst, second best with second worst, and round again while there are clean pairs and room."""
    made: list[tuple[Key, Key]] = []
    for number, worse in enumerate(others):
        if len(made) == settings.pairs_per_prompt or not chosen:
            break
        better = chosen[number % len(chosen)]
        if _kind(better, worse, settings.pair_margin) == "pairs":
            made.append((better.key, worse.key))
    return made


def _kind(better: Scored, worse: Scored, margin: float) -> str:
    gap = (better.score or 0.0) - (worse.score or 0.0)
    if gap == 0.0:
        return "ties"
    return "pairs" if gap >= margin else "ambiguous"
