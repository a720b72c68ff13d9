"""Reads for curation: a round's samples and scores, and the training rows of earlier rounds of the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Select, case, func, select, union_all
from sqlalchemy.orm import Session, aliased

from illume_db.prompts import COLUMNS, PromptRow
from illume_db.tables import Assessment, Example, Manifest, Prompt, Round, RoundPrompt, Sample


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """A row of a manifest; `sample` is None for a replayed real pair.

    `rejected` is the worse sample of a preference or of a correction. `answer` is the text of an assessment.
    """

    kind: str
    text: str
    real_index: int | None
    sample: SampleRow | None
    rejected: SampleRow | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A sample with its natural key and the fields that a training row needs."""

    sample_id: int
    round_index: int
    sample_index: int
    prompt: PromptRow
    """The sample's prompt, with the prompt's position in the round."""
    image_ids: NDArray[np.int32]
    image_sha256: str

    @property
    def position(self) -> int:
        """The position of the sample's prompt in the round."""
        return self.prompt.position

    @property
    def key(self) -> tuple[int, int]:
        """The sample's natural key in the round: (prompt position, sample index)."""
        return self.position, self.sample_index


def samples_of_round(session: Session, round_id: int) -> list[SampleRow]:
    """Return all samples of a round, ordered by prompt position and sample index."""
    query = _sample_rows().where(Sample.round_id == round_id).order_by(RoundPrompt.position, Sample.sample_index)
    return [_sample(*row) for row in session.execute(query)]


def scored_by(setting: str) -> str:
    """Return the assessor whose scores the setting `assess.assessor` uses.

    The control `shuffled` uses the scores of `self` and deals them out at random.
    """
    return "self" if setting == "shuffled" else setting


def scores_of_round(session: Session, round_id: int, assessor: str) -> dict[int, float]:
    """Return the score of each sample that this assessor could score, by sample id."""
    query = (
        select(Assessment.sample_id, Assessment.score)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Assessment.assessor == assessor, Assessment.state == "ok")
    )
    return {sample_id: score for sample_id, score in session.execute(query) if score is not None}


def accepted_before(session: Session, run_id: int, round_index: int) -> list[SampleRow]:
    """Return the samples that earlier rounds of the run accepted, whether or not their candidates were promoted."""
    accepted = (
        select(Example.sample_id)
        .join(Manifest, Manifest.id == Example.manifest_id)
        .join(Round, Round.id == Manifest.round_id)
        .where(Round.run_id == run_id, Round.index < round_index, Example.sample_id.is_not(None))
    )
    query = (
        _sample_rows().where(Sample.id.in_(accepted)).order_by(Round.index, RoundPrompt.position, Sample.sample_index)
    )
    return [_sample(*row) for row in session.execute(query)]


def pairs_before(session: Session, run_id: int, round_index: int) -> list[tuple[SampleRow, SampleRow]]:
    """Return the preferences (chosen, rejected) that earlier rounds of the run made, each once."""
    query = (
        select(Example.sample_id, Example.rejected_id)
        .distinct()
        .join(Manifest, Manifest.id == Example.manifest_id)
        .join(Round, Round.id == Manifest.round_id)
        .where(Round.run_id == run_id, Round.index < round_index, Example.kind == "pair")
    )
    found = query.subquery()
    both = select(found.c.sample_id).union_all(select(found.c.rejected_id))
    by_id: dict[int | None, SampleRow] = {
        row[0]: _sample(*row) for row in session.execute(_sample_rows().where(Sample.id.in_(both)))
    }
    pairs = [(by_id[chosen], by_id[rejected]) for chosen, rejected in session.execute(query)]
    return sorted(pairs, key=lambda pair: [(row.round_index, row.position, row.sample_index) for row in pair])


def critiques_of_round(session: Session, round_id: int, assessor: str) -> dict[int, dict[str, Any]]:
    """Return the critiques that this assessor wrote, by sample id."""
    query = (
        select(Assessment.sample_id, Assessment.critique)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Assessment.assessor == assessor, Assessment.state == "ok")
    )
    return {sample_id: critique for sample_id, critique in session.execute(query) if critique}


def assessments_before(session: Session, run_id: int, round_index: int) -> list[ExampleRow]:
    """Return the assessment rows that earlier rounds of the run made.

    They are read from the last manifest, because each manifest holds the assessments of all manifests before it.
    """
    last = (
        select(Manifest.id)
        .join(Round, Round.id == Manifest.round_id)
        .where(Round.run_id == run_id, Round.index < round_index)
        .order_by(Round.index.desc())
        .limit(1)
    )
    manifest_id = session.scalar(last)
    rows = [] if manifest_id is None else examples_of(session, manifest_id)
    return [row for row in rows if row.answer is not None]


def unsolved_prompts(session: Session, run_id: int) -> list[PromptRow]:
    """Return the prompts of the run that were drawn and have no sample in any manifest.

    The prompts whose last round is the earliest come first. A prompt is left out while a round that drew it is not
    curated yet.
    """
    accepted = select(Example.prompt_id).where(Example.prompt_id == RoundPrompt.prompt_id)
    drawn = select(Sample.id).where(Sample.round_id == Round.id, Sample.prompt_id == RoundPrompt.prompt_id)
    undecided = ("planned", "sampling", "assessing", "curating")
    tried = (
        select(
            RoundPrompt.prompt_id, func.max(Round.index).label("last"), func.min(RoundPrompt.position).label("place")
        )
        .join(Round, Round.id == RoundPrompt.round_id)
        .where(Round.run_id == run_id, ~accepted.exists(), drawn.exists())
        .group_by(RoundPrompt.prompt_id)
        .having(func.sum(case((Round.state.in_(undecided), 1), else_=0)) == 0)
        .subquery()
    )
    query = (
        select(*COLUMNS).join(tried, tried.c.prompt_id == Prompt.id).order_by(tried.c.last, tried.c.place, Prompt.text)
    )
    return [PromptRow(*row) for row in session.execute(query)]


def num_drawn_again(session: Session, round_: Round) -> int:
    """Count the prompts of a round that an earlier round of its run had as well."""
    earlier = aliased(RoundPrompt)
    before = (
        select(earlier.prompt_id)
        .join(Round, Round.id == earlier.round_id)
        .where(Round.index < round_.index, earlier.prompt_id == RoundPrompt.prompt_id)
    )
    query = select(func.count()).select_from(RoundPrompt).where(RoundPrompt.round_id == round_.id, before.exists())
    return session.scalar(query) or 0


def _sample(id_: int, index: int, number: int, image_ids: NDArray[np.int32], sha256: str, *prompt: Any) -> SampleRow:
    return SampleRow(id_, index, number, PromptRow(*prompt), image_ids, sha256)


def _sample_rows() -> Select[*tuple[Any, ...]]:
    """Return a query for the arguments of `_sample`."""
    return (
        select(
            Sample.id,
            Round.index,
            Sample.sample_index,
            Sample.image_ids,
            Sample.image_sha256,
            *COLUMNS,
            RoundPrompt.position,
        )
        .join(Round, Round.id == Sample.round_id)
        .join(Prompt, Prompt.id == Sample.prompt_id)
        .join(RoundPrompt, (RoundPrompt.round_id == Sample.round_id) & (RoundPrompt.prompt_id == Sample.prompt_id))
    )


def examples_of(session: Session, manifest_id: int) -> list[ExampleRow]:
    """Return the rows of a manifest in order."""
    query = select(Example).where(Example.manifest_id == manifest_id).order_by(Example.position)
    columns = Example.sample_id, Example.rejected_id
    named = union_all(*(select(column).where(Example.manifest_id == manifest_id) for column in columns))
    samples: dict[int | None, SampleRow] = {
        row[0]: _sample(*row) for row in session.execute(_sample_rows().where(Sample.id.in_(named)))
    }
    return [
        ExampleRow(
            row.kind, row.text, row.real_index, samples.get(row.sample_id), samples.get(row.rejected_id), row.answer
        )
        for row in session.scalars(query)
    ]
