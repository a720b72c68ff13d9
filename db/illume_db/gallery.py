"""Filtered pages of a round's samples, in a time that does not grow with the round.

Each page scans at most SCAN samples in the order of their ids and returns where the next page begins. A filter that
few samples pass therefore gives short pages, not slow ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, case, func, null, or_, select
from sqlalchemy.orm import Session, aliased

from illume_db.samples import ACCEPTED, CHECKER, CURATED, JUDGE, SampleQuery, sample_query, sample_row
from illume_db.tables import Assessment, Prompt, Round, RoundPrompt, Sample

SCAN = 10_000

_Frozen, _Human = aliased(Assessment), aliased(Assessment)


@dataclass(frozen=True, slots=True)
class Filters:
    """A filter of samples; an empty or None field filters nothing.

    `low` and `high` bound the judge's score. `right` is the checker's verdict. `differ` keeps the samples on which the
    assessors disagree. `kept` is True for samples that became training rows and False for those that did not.
    """

    category: str = ""
    text: str = ""
    low: float | None = None
    high: float | None = None
    right: bool | None = None
    differ: bool = False
    kept: bool | None = None


@dataclass(frozen=True, slots=True)
class GalleryPage:
    """A page of rows as in `samples_page`; the next page begins after the id `after`, None at the end of the round.

    `num_searched` counts the samples that this page searched. It is 0 without a next page, where nobody needs it.
    `num_in_round` counts the samples of the round.
    """

    rows: list[dict[str, Any]]
    after: int | None
    num_searched: int = 0
    num_in_round: int = 0


def gallery_page(
    session: Session, run_id: int, round_id: int, filters: Filters, *, after: int = 0, limit: int = 48
) -> GalleryPage:
    """Return the next samples of a round with an id above `after` that pass the filters, by id."""
    last = _last_looked_at(session, round_id, after)
    if last is None:
        return GalleryPage([], None)
    query = _within(sample_query(session, run_id), round_id, after, last)
    found = session.execute(_filtered(query, filters).order_by(Sample.id).limit(limit + 1)).all()
    rows = [sample_row(*row) for row in found[:limit]]
    if len(found) > limit:
        return _unfinished_page(session, round_id, rows, after, rows[-1]["id"])
    more = session.scalar(select(Sample.id).where(Sample.round_id == round_id, Sample.id > last).limit(1))
    return GalleryPage(rows, None) if more is None else _unfinished_page(session, round_id, rows, after, last)


def extremes(
    session: Session, run_id: int, round_id: int, filters: Filters, *, limit: int = 24
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the samples with the highest and those with the lowest judge's scores, of a round's first SCAN samples."""
    last = _last_looked_at(session, round_id, 0)
    if last is None:
        return [], []
    query = _filtered(_within(sample_query(session, run_id), round_id, 0, last), filters)
    query = query.where(JUDGE.score.is_not(None)).limit(limit)
    highest = session.execute(query.order_by(JUDGE.score.desc(), Sample.id)).all()
    lowest = session.execute(query.order_by(JUDGE.score, Sample.id)).all()
    return [sample_row(*row) for row in highest], [sample_row(*row) for row in lowest]


def round_numbers(session: Session, run_id: int, limit: int = 100) -> list[int]:
    """Return the indexes of the rounds that have samples, the latest first."""
    query = (
        select(Round.index)
        .where(Round.run_id == run_id, Round.num_samples > 0)
        .order_by(Round.index.desc())
        .limit(limit)
    )
    return list(session.scalars(query))


def round_id_of(session: Session, run_id: int, index: int) -> int | None:
    """Return the id of the round with this index; None if there is none."""
    return session.scalar(select(Round.id).where(Round.run_id == run_id, Round.index == index))


def categories_of(session: Session, round_id: int) -> list[str]:
    """Return the categories of a round's first SCAN prompts."""
    some = (
        select(RoundPrompt.prompt_id)
        .where(RoundPrompt.round_id == round_id)
        .order_by(RoundPrompt.position)
        .limit(SCAN)
        .subquery()
    )
    query = select(Prompt.category).join(some, some.c.prompt_id == Prompt.id).distinct().order_by(Prompt.category)
    return list(session.scalars(query))


def _last_looked_at(session: Session, round_id: int, after: int) -> int | None:
    window = (
        select(Sample.id)
        .where(Sample.round_id == round_id, Sample.id > after)
        .order_by(Sample.round_id, Sample.id)
        .limit(SCAN)
        .subquery()
    )
    last: int | None = session.scalar(select(func.max(window.c.id)))
    return last


def _unfinished_page(session: Session, round_id: int, rows: list[dict[str, Any]], after: int, last: int) -> GalleryPage:
    """Return a page that searched the ids above `after` up to `last`, and that another page follows."""
    searched = select(func.count()).where(Sample.round_id == round_id, Sample.id > after, Sample.id <= last)
    in_round = select(Round.num_samples).where(Round.id == round_id)
    return GalleryPage(rows, last, session.scalar(searched) or 0, session.scalar(in_round) or 0)


def _within(query: SampleQuery, round_id: int, after: int, last: int) -> SampleQuery:
    return query.where(Sample.round_id == round_id, Sample.id > after, Sample.id <= last)


def _filtered(query: SampleQuery, filters: Filters) -> SampleQuery:
    conditions: list[ColumnElement[bool]] = []
    if filters.category:
        conditions.append(Prompt.category == filters.category)
    if filters.text:
        conditions.append(Prompt.text.icontains(filters.text, autoescape=True))
    if filters.low is not None:
        conditions.append(JUDGE.score >= filters.low)
    if filters.high is not None:
        conditions.append(JUDGE.score <= filters.high)
    if filters.right is not None:
        conditions.append(CHECKER.score == 1.0 if filters.right else CHECKER.score < 1.0)
    if filters.kept is not None:
        conditions.append(ACCEPTED if filters.kept else ~ACCEPTED)
    if filters.differ:
        query = query.outerjoin(_Frozen, (_Frozen.sample_id == Sample.id) & (_Frozen.assessor == "frozen"))
        query = query.outerjoin(_Human, (_Human.sample_id == Sample.id) & (_Human.assessor == "human"))
        conditions.append(_differ())
    return query.where(*conditions)


def _differ() -> ColumnElement[bool]:
    """Return the condition that two of the judge, the checker, the frozen judge and people disagree.

    The judge's answer is that of its calibrated probability, else that of the mean log-odds of its questions, else
    whether the sample was accepted.
    """
    said = [
        _says(JUDGE, case((CURATED, case((ACCEPTED, 1), else_=0)), else_=null())),
        _says(_Frozen, null()),
        case((CHECKER.score == 1.0, 1), (CHECKER.score.is_not(None), 0)),
        case((_Human.score == 1.0, 1), (_Human.score.is_not(None), 0)),
    ]
    pairs = [(one, other) for place, one in enumerate(said) for other in said[place + 1 :]]
    return or_(*(and_(one.is_not(None), other.is_not(None), one != other) for one, other in pairs))


def _says(assessment: Any, otherwise: ColumnElement[Any]) -> ColumnElement[Any]:
    yes_no = assessment.details["readings"]["yes-no"].as_float()
    return case(
        (assessment.probability >= 0.5, 1),
        (assessment.probability.is_not(None), 0),
        (yes_no > 0, 1),
        (yes_no.is_not(None), 0),
        else_=otherwise,
    )
