"""The assessment rows of a round, with one turn or two: ILLUME's self-enhancing dialogues.

- A good image has one turn, its assessment. It was accepted, and its critique says no to no criterion.
- A bad image has two turns: its assessment, and its correction by the best accepted sample of its prompt. It was not
  accepted, its score is lower than that of the correction by a margin, and its critique says no to some criterion.
- An image whose score and critique contradict each other has no row.

Two controls keep the images and the turns and change only the critiques. `shuffled` shuffles the critiques over all
rows. `other-image` gives each row the critique of another image of its prompt.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from sqlalchemy.orm import Session

from illume_db.curation import ExampleRow, SampleRow, assessments_before, critiques_of_round, scored_by
from illume_db.judging import count_written
from illume_db.tables import Round
from illume_loop.errors import InconsistentRunError
from illume_loop.judge.critiques import ANALYSIS
from illume_loop.judge.instructions import json_answer
from illume_loop.loop.context import RunContext
from illume_loop.loop.curated import Curated, is_uncontested
from illume_loop.loop.moves import note
from illume_loop.loop.unit_inputs import derived_seed
from illume_loop.protocols import CRITERIA, NO
from illume_loop.settings import CurateSettings

WRITTEN = ("verdict", "score", "evidence")
"""The keys of a criterion in a learned critique, in order. Only a teacher gives a score."""

Critiques = Mapping[int, Mapping[str, Any]]
"""The critiques by sample id; a sample without a critique is missing."""


def assessment_rows(
    samples: Sequence[SampleRow],
    accepted: Collection[SampleRow],
    scores: Mapping[tuple[int, int], float],
    critiques: Critiques,
    settings: CurateSettings,
    seed: int,
) -> tuple[list[ExampleRow], dict[str, int]]:
    """Return at most `curate.assessment_rows` rows, and the counts of rows made and samples left out.

    Half of the rows have two turns if there are enough bad images. The counts are:

    - `assessed`: rows with one turn.
    - `corrected`: rows with two turns.
    - `contradicted`: accepted samples, and samples with a correction, whose critique contradicts their score.
    - `not_critiqued`: such samples without a critique.
    - `no_other_image`: rows of the control `other-image` whose prompt has no other image with a critique.
    """
    best = _best_of_prompts(accepted, scores)
    kept = {sample.sample_id for sample in accepted}
    good: list[ExampleRow] = []
    bad: list[ExampleRow] = []
    counts = Counter({"assessed": 0, "corrected": 0, "contradicted": 0, "not_critiqued": 0})
    for sample in samples:
        correction = best.get(sample.prompt.id)
        is_good = sample.sample_id in kept
        if not is_good and not _is_worse(sample, correction, scores, settings.pair_margin):
            continue
        critique = critiques.get(sample.sample_id)
        if critique is None:
            counts["not_critiqued"] += 1
        elif finds_fault(critique) is is_good:
            counts["contradicted"] += 1
        elif is_good:
            good.append(ExampleRow("assess", sample.prompt.text, None, sample, answer=written(critique)))
        else:
            bad.append(ExampleRow("correct", sample.prompt.text, None, correction, sample, written(critique)))
    rows = _chosen(good, bad, settings.assessment_rows, Random(seed))
    if settings.assessments == "shuffled":
        rows = _shuffled(rows, Random(seed))
    elif settings.assessments == "other-image":
        found = _of_other_images(rows, samples, critiques, Random(seed))
        counts["no_other_image"] = len(rows) - len(found)
        rows = found
    counts["assessed"] = sum(row.kind == "assess" for row in rows)
    counts["corrected"] = len(rows) - counts["assessed"]
    return rows, dict(counts)


def finds_fault(critique: Mapping[str, Any]) -> bool:
    """Return whether a critique says no to any criterion."""
    return any(isinstance(told, Mapping) and told.get("verdict") == NO for told in critique.values())


def contradicts_people(critique: Mapping[str, Any], agrees: bool, criteria: Mapping[str, bool]) -> bool:
    """Return whether a critique contradicts the verdict of people.

    `agrees` is their verdict on the whole image. `criteria` are their verdicts on single criteria.
    """
    if finds_fault(critique) is agrees:
        return True
    verdicts = {name: told.get("verdict") for name, told in critique.items() if isinstance(told, Mapping)}
    return any((verdicts[name] != NO) is not holds for name, holds in criteria.items() if verdicts.get(name))


def written(critique: Mapping[str, Any]) -> str:
    """Return a critique as the text that pretraining writes; a teacher's has a score for each criterion too.

    The criteria come in their own order, which Postgres does not keep.
    """
    told = {
        criterion: {key: critique[criterion][key] for key in WRITTEN if key in critique[criterion]}
        for criterion in CRITERIA
        if criterion in critique
    }
    return json_answer({**told, ANALYSIS: critique[ANALYSIS]})


def _best_of_prompts(accepted: Collection[SampleRow], scores: Mapping[tuple[int, int], float]) -> dict[int, SampleRow]:
    worst_first = sorted(accepted, key=lambda sample: (scores[sample.key], [-part for part in sample.key]))
    return {sample.prompt.id: sample for sample in worst_first}


def _is_worse(
    sample: SampleRow, correction: SampleRow | None, scores: Mapping[tuple[int, int], float], margin: float
) -> bool:
    if correction is None or sample.key not in scores:
        return False
    return scores[correction.key] - scores[sample.key] >= margin


def _chosen(good: Sequence[ExampleRow], bad: Sequence[ExampleRow], most: int, rng: Random) -> list[ExampleRow]:
    num_bad = min(len(bad), max(most // 2, most - len(good)))
    num_good = min(len(good), most - num_bad)
    sides = ((good, num_good), (bad, num_bad))
    return [side[place] for side, number in sides for place in sorted(rng.sample(range(len(side)), number))]


def _shuffled(rows: Sequence[ExampleRow], rng: Random) -> list[ExampleRow]:
    answers = [row.answer for row in rows]
    rng.shuffle(answers)
    return [replace(row, answer=answer) for row, answer in zip(rows, answers, strict=True)]


def _of_other_images(
    rows: Sequence[ExampleRow], samples: Sequence[SampleRow], critiques: Critiques, rng: Random
) -> list[ExampleRow]:
    of_prompt: defaultdict[int, list[int]] = defaultdict(list)
    for sample in samples:
        if sample.sample_id in critiques:
            of_prompt[sample.prompt.id].append(sample.sample_id)
    found = []
    for row in rows:
        assessed = row.rejected or row.sample
        if assessed is None:
            raise InconsistentRunError(what=f"an assessment to be learned, of '{row.text}', is of no sample")
        others = [id_ for id_ in of_prompt[assessed.prompt.id] if id_ != assessed.sample_id]
        if others:
            found.append(replace(row, answer=written(critiques[rng.choice(others)])))
    return found


def dialogues(context: RunContext, session: Session, round_: Round, curated: Curated) -> list[ExampleRow]:
    """Return the assessment rows of earlier rounds and of this one, and add their counts to those of `curated`.

    A critique that people contradict gives no row, because the words of its evidence would be wrong.
    """
    people = curated.people
    settings = context.settings
    critic = "teacher" if settings.assess.teacher_writes else scored_by(settings.assess.assessor)
    critiques = critiques_of_round(session, round_.id, critic)
    kept = {
        id_: critique
        for id_, critique in critiques.items()
        if id_ not in people or not contradicts_people(critique, people[id_].agrees, people[id_].criteria)
    }
    overruled_counts = {"critiques_overruled": len(critiques) - len(kept)} if len(kept) < len(critiques) else {}
    seed = derived_seed("assessments", settings.run.seed, round_.index)
    new, counts = assessment_rows(curated.samples, curated.accepted, curated.scores, kept, settings.curate, seed)
    earlier = [
        row
        for row in assessments_before(session, context.run_id, round_.index)
        if row.sample is None or is_uncontested(people, row.sample, row.rejected)
    ]
    curated.counts |= counts | overruled_counts | {"earlier_assessments": len(earlier)}
    if settings.assess.teacher_writes:
        curated.counts |= _teachers_counts(context, session, round_)
    return earlier + new


def _teachers_counts(context: RunContext, session: Session, round_: Round) -> dict[str, int]:
    """Return the counts of the teacher's invalid replies and of samples without a critique, and note the latter."""
    num_invalid, num_missing = count_written(session, round_.id, "teacher")
    if num_missing:
        line = f"the teacher wrote no valid assessment of {num_missing} of {round_.num_samples} samples"
        note(context, session, round_, "judged", f"round {round_.index}: {line}")
    return {"teacher_invalid": num_invalid, "teacher_unwritten": num_missing}
