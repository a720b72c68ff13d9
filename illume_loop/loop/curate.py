"""Which samples a round accepts: best-of-n rejection sampling. Pure.

Per prompt the best `keep_per_prompt` are kept, fewer where the gap to the best rejected one is below `margin`; then the
lowest share of what was kept of each category is dropped (a likelihood is a sum over the prompt's tokens, so the scores
of long prompts and short ones do not compare). Samples without a score (abstained, failed) are never kept, and never
count as low. Equal scores share one fate in the second step, so that a judge of few values (the checker) does not lose
samples by the order of their names; in the first step the lower sample index wins, because the limit must hold.

At last no category may have more than `category_share` of what is left (or than an equal share, where there are too few
categories for less): its best ones stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random

from illume_loop.config import CurateSettings

Ranked = tuple[float, tuple[int, int]]
"""A score with the key of its sample."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample under its natural key in the round; score None means that the assessor gave none."""

    position: int
    sample_index: int
    score: float | None
    category: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """(prompt position, sample index)."""
        return self.position, self.sample_index


def accept(samples: Sequence[Scored], settings: CurateSettings, floor: float | None = None) -> list[tuple[int, int]]:
    """The keys of the accepted samples, in order. Scores below `floor` are never accepted."""
    usable = sorted((s for s in samples if s.score is not None and s.score == s.score), key=lambda s: s.key)
    kept: defaultdict[str, list[Ranked]] = defaultdict(list)
    for _, of_prompt in groupby(usable, key=lambda s: s.position):
        samples_of_prompt = list(of_prompt)
        best = _best([(s.score or 0.0, s.key) for s in samples_of_prompt], settings.keep_per_prompt, settings.margin)
        kept[samples_of_prompt[0].category] += [item for item in best if floor is None or item[0] >= floor]
    left = [_without_lowest(alike, settings.drop_lowest) for alike in kept.values()]
    return sorted(key for alike in _balanced(left, settings.category_share) for _, key in alike)


def shuffled(scores: Mapping[tuple[int, int], float], seed: int) -> dict[tuple[int, int], float]:
    """The same scores dealt out anew over the same samples: a judge that knows nothing, with a judge's distribution."""
    keys = sorted(scores)
    values = [scores[key] for key in keys]
    Random(seed).shuffle(values)
    return dict(zip(keys, values, strict=True))


def _best(scored: Sequence[Ranked], limit: int, margin: float) -> list[Ranked]:
    ranked = sorted(scored, key=lambda item: (-item[0], item[1]))
    count = min(limit, len(ranked))
    while 0 < count < len(ranked) and ranked[count - 1][0] - ranked[count][0] < margin:
        count -= 1
    return ranked[:count]


def _without_lowest(kept: list[Ranked], share: float) -> list[Ranked]:
    num_dropped = int(share * len(kept))
    if num_dropped == 0:
        return kept
    lowest_kept = sorted(score for score, _ in kept)[num_dropped]
    return [(score, key) for score, key in kept if score >= lowest_kept]


def _balanced(categories: Sequence[list[Ranked]], share: float) -> list[list[Ranked]]:
    sizes = [len(alike) for alike in categories if alike]
    if not sizes or share == 1.0:
        return list(categories)
    share = max(share, 1.0 / len(sizes))
    # Each limit makes a smaller whole, of which it must be the share: the largest one that is.
    most = max(n for n in range(1, max(sizes) + 1) if n <= share * sum(min(size, n) for size in sizes) + 1e-9)
    return [sorted(alike, key=lambda item: (-item[0], item[1]))[:most] for alike in categories]
