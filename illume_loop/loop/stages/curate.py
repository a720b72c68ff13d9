"""Curate a round: accept samples, and pair them into clean preferences.

People overrule the judge. A sample that they found right is accepted, and one that they found wrong is not, whatever
its score is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random

import numpy as np
from sqlalchemy.orm import Session

from illume_db.curation import (
    SampleRow,
    accepted_before,
    num_drawn_again,
    pairs_before,
    samples_of_round,
    scored_by,
    scores_of_round,
)
from illume_db.judging import AssessmentCounts, controls, count_assessments
from illume_db.reviews import verdicts_of_people
from illume_db.samples import verdicts
from illume_db.tables import Round
from illume_loop.evals.statistics import auc
from illume_loop.loop.context import RunContext
from illume_loop.loop.curated import Curated, Preference, is_uncontested, people_found_wrong, with_human_verdicts
from illume_loop.loop.moves import move, note
from illume_loop.loop.states import RoundState
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.settings import CurateSettings, Settings

Ranked = tuple[float, tuple[int, int]]
"""A score and the key of its sample."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample's natural key in the round, and its score; None if the assessor gave none."""

    position: int
    sample_index: int
    score: float | None
    category: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """The sample's (prompt position, sample index)."""
        return self.position, self.sample_index


def accept(samples: Sequence[Scored], settings: CurateSettings, floor: float | None = None) -> list[tuple[int, int]]:
    """Return the keys of the accepted samples, in order. A sample whose score is below `floor` is never accepted."""
    usable = sorted((s for s in samples if s.score is not None and s.score == s.score), key=lambda s: s.key)
    kept: defaultdict[str, list[Ranked]] = defaultdict(list)
    for _, of_prompt in groupby(usable, key=lambda s: s.position):
        samples_of_prompt = list(of_prompt)
        best = _best([(s.score or 0.0, s.key) for s in samples_of_prompt], settings.keep_per_prompt, settings.margin)
        kept[samples_of_prompt[0].category] += [item for item in best if floor is None or item[0] >= floor]
    left = [_without_lowest(alike, settings.drop_lowest) for alike in kept.values()]
    return sorted(key for alike in _balanced(left, settings.category_share) for _, key in alike)


def shuffled(scores: Mapping[tuple[int, int], float], seed: int) -> dict[tuple[int, int], float]:
    """Return the same scores, shuffled over the same samples.

    This is a control: the judge knows nothing, but its scores have the distribution of a real judge's.
    """
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
    # A limit per category also lowers the total that the share is taken of. This is the largest limit that is within
    # the share of its own total.
    most = max(n for n in range(1, max(sizes) + 1) if n <= share * sum(min(size, n) for size in sizes) + 1e-9)
    return [sorted(alike, key=lambda item: (-item[0], item[1]))[:most] for alike in categories]


Key = tuple[int, int]

Scores = Mapping[Key, float]
"""The score of each sample that has one, by (prompt position, sample index)."""


def clean_pairs(
    samples: Sequence[Scored], accepted: Collection[Key], settings: CurateSettings
) -> tuple[list[tuple[Key, Key]], dict[str, int]]:
    """Return the (chosen, rejected) pairs of every prompt, in order, and the counts of all possible pairs by outcome.

    A possible pair is an accepted sample and one of its prompt that is not accepted. Its outcome is one of:

    - `pairs`: the pair is made.
    - `over_limit`: the pair is clean and not made, because each rejected sample is matched once and each prompt has a
      limit.
    - `ambiguous`: the gap is below the margin, or the wrong way round.
    - `ties`: the scores are equal.

    Samples without a score are in no pair.
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
    """Drop a sample if more than `share` of its tokens match a better sample of the same prompt.

    Returns the samples that remain, in order. Tokens are compared position by position. The samples of `earlier` are
    accepted already and count as better.
    """
    kept: defaultdict[str, list[SampleRow]] = defaultdict(list)
    for sample in earlier:
        kept[sample.prompt.text].append(sample)
    for sample in sorted(accepted, key=lambda s: (-scores[s.position, s.sample_index], s.position, s.sample_index)):
        if not any(np.mean(sample.image_ids == other.image_ids) > share for other in kept[sample.prompt.text]):
            kept[sample.prompt.text].append(sample)
    ids = {sample.sample_id for of_prompt in kept.values() for sample in of_prompt}
    return [sample for sample in accepted if sample.sample_id in ids]


def _matched(chosen: Sequence[Scored], others: Sequence[Scored], settings: CurateSettings) -> list[tuple[Key, Key]]:
    """Match the best chosen sample with the worst other one, the second best with the second worst, and so on.

    After the last chosen sample comes the best one again. A match that is not clean makes no pair. The matching ends at
    the prompt's limit of pairs.
    """
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


ALL_RIGHT_SCORE = 1.0
"""The least accepted score of an assessor that says yes or no (the checker, a teacher).

A sample that fails is not accepted, even if few samples pass."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The selected samples and preferences, in the order of the samples; `rounds show` shows the `counts`."""

    accepted: list[SampleRow]
    preferences: list[Preference]
    scores: Mapping[tuple[int, int], float]
    """The scores by natural key. People's verdicts have overruled the judge's."""
    counts: dict[str, int]


def select(
    samples: Sequence[SampleRow],
    scores: Mapping[tuple[int, int], float],
    earlier: Sequence[SampleRow],
    settings: Settings,
    reviewed: Mapping[tuple[int, int], bool] | None = None,
) -> Selection:
    """Select samples and preferences of a round by the samples' scores.

    A sample without a score is missing from `scores`. Earlier rounds accepted the samples of `earlier`. `reviewed` has
    the verdicts of people: True if they found the sample right.
    """
    reviewed = reviewed or {}
    least = settings.curate.min_score
    floor = max(least, ALL_RIGHT_SCORE) if settings.assess.says_yes_or_no else least
    judged = [
        Scored(*sample.key, scores.get(sample.key), sample.prompt.category)
        for sample in samples
        if reviewed.get(sample.key) is not False
    ]
    right = {key for key, agrees in reviewed.items() if agrees}
    best = set(accept(judged, settings.curate, floor)) | right
    scores = with_human_verdicts(scores, reviewed, settings)
    scored = [Scored(*sample.key, scores.get(sample.key), sample.prompt.category) for sample in samples]
    accepted = without_near_duplicates(
        [sample for sample in samples if sample.key in best], earlier, scores, settings.curate.duplicate_share
    )
    counts = {"near_duplicates": len(best) - len(accepted)}
    if reviewed:
        counts["reviewed"] = len(reviewed)
    if not settings.train.learns_from_pairs:
        return Selection(accepted, [], scores, counts)
    keys = {sample.key for sample in accepted}
    # A near duplicate of an accepted image cannot be rejected in favour of that image.
    sides = [sample for sample in scored if sample.key in keys or sample.key not in best]
    pairs, of_pairs = clean_pairs(sides, keys, settings.curate)
    by_key = {sample.key: sample for sample in samples}
    preferences = [(by_key[chosen], by_key[rejected]) for chosen, rejected in pairs]
    return Selection(accepted, preferences, scores, counts | of_pairs)


def curate(context: RunContext, session: Session, round_: Round) -> Curated | None:
    """Accept samples of a round; fail the round and return None if its judge cannot be used.

    The result is stored later, by `write_manifest`.
    """
    settings = context.settings
    how = count_assessments(session, round_.id, scored_by(settings.assess.assessor))
    objection = _judge_problem(context, session, round_, how)
    if objection is not None:
        move(context, session, round_, RoundState.FAILED, error=objection)
        return None
    samples = samples_of_round(session, round_.id)
    scores = _scores(context, session, round_, samples)
    people = verdicts_of_people(session, context.run_id)
    earlier = [
        sample
        for sample in accepted_before(session, context.run_id, round_.index)
        if not people_found_wrong(people, sample)
    ]
    reviewed = {sample.key: people[sample.sample_id].agrees for sample in samples if sample.sample_id in people}
    selection = select(samples, scores, earlier, settings, reviewed)
    values = {"num_accepted": len(selection.accepted), "judge_auc": _judge_auc(session, round_, samples, scores)}
    counts, preferences = selection.counts | how.counts, selection.preferences
    if settings.sampling.replay_share:
        counts = counts | {"drawn_again": num_drawn_again(session, round_)}
    if settings.train.learns_from_pairs:
        earlier_pairs = [
            pair for pair in pairs_before(session, context.run_id, round_.index) if is_uncontested(people, *pair)
        ]
        counts = counts | {"earlier_pairs": len(earlier_pairs)}
        preferences = earlier_pairs + preferences
    return Curated(samples, selection.accepted, earlier, preferences, selection.scores, people, counts, values)


def _scores(
    context: RunContext, session: Session, round_: Round, samples: Sequence[SampleRow]
) -> dict[tuple[int, int], float]:
    """Return the scores of the configured assessor by natural key.

    The control `shuffled` has the scores of `self`, shuffled over the samples.
    """
    assessor = context.settings.assess.assessor
    by_id = scores_of_round(session, round_.id, scored_by(assessor))
    scores = {(s.position, s.sample_index): by_id[s.sample_id] for s in samples if s.sample_id in by_id}
    if assessor == "shuffled":
        return shuffled(scores, derived_seed("shuffle", context.settings.run.seed, round_.index))
    return scores


def _judge_auc(
    session: Session, round_: Round, samples: Sequence[SampleRow], scores: dict[tuple[int, int], float]
) -> float | None:
    """Return the AUC of the scores against the verdicts of the checker; None without both kinds of verdicts."""
    passed = verdicts(session, round_.id)
    judged = [s for s in samples if s.sample_id in passed and (s.position, s.sample_index) in scores]
    return auc([scores[s.position, s.sample_index] for s in judged], [passed[s.sample_id] for s in judged])


LEAST_CONTROL_AUC = 0.6
"""The least AUC of a judge between the questions of an image's own prompt and those of a foreign one.

A judge that works is far above it even if few images are right, because the foreign questions fit an image less."""

LEAST_CONTROLS = 30


def _judge_problem(context: RunContext, session: Session, round_: Round, how: AssessmentCounts) -> str | None:
    """Return why the judge cannot be used: it gave no scores, or they carry no information. None if it can be used."""
    assessor = scored_by(context.settings.assess.assessor)
    if how.num_failed:
        of = how.num_ok + how.num_abstained + how.num_failed
        failed = f"the judge '{assessor}' could not score {how.num_failed} of {of} samples ({how.error})"
        note(context, session, round_, "judged", f"round {round_.index}: {failed}")
        if not how.num_ok:
            return failed
    asked = controls(session, round_.id, assessor)
    found = auc([value for pair in asked for value in pair], [True, False] * len(asked))
    if len(asked) < LEAST_CONTROLS or found is None or found >= LEAST_CONTROL_AUC:
        return None
    return (
        f"the judge '{assessor}' says yes to the questions of other prompts as readily as to an image's own "
        f"(AUC {found:.2f} over {len(asked)} images, below {LEAST_CONTROL_AUC}); judge by another reading or assessor"
    )
