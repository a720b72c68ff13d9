"""What the coordinator and the units read: the round on its way, its units, its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session, aliased

from db.clock import db_later
from db.models import (
    Assessment,
    GateDecision,
    Manifest,
    ModelVersion,
    Prompt,
    Round,
    RoundPrompt,
    Run,
    Sample,
    StageCount,
    Unit,
)
from db.models.round import TERMINAL_STATES
from db.models.unit import in_state, is_due


@dataclass(frozen=True, slots=True)
class StageCounts:
    """How many units of a kind a round has in each state, and how many items those have that are done."""

    num_units: int = 0
    num_pending: int = 0
    num_leased: int = 0
    num_done: int = 0
    num_dead: int = 0
    items_total: int = 0
    items_done: int = 0
    seconds: float = 0.0
    progress_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A unit as the coordinator sees it; `token` is what a message about it carries."""

    id: int
    round_id: int
    round_index: int
    kind: str
    key: str
    state: str
    payload: dict[str, Any]
    attempts: int
    error: str | None
    token: int


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt of a round at its position."""

    id: int
    position: int
    text: str
    category: str
    key: str
    spec: dict[str, Any]
    instruction: str | None = None
    target: str | None = None
    source_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A sample with its prompt."""

    sample_id: int
    sample_index: int
    image_sha256: str
    prompt: PromptRow


def latest_round(session: Session, run_id: int) -> Round | None:
    """The round with the highest index."""
    return session.scalar(select(Round).where(Round.run_id == run_id).order_by(Round.index.desc()).limit(1))


def open_rounds(session: Session, run_id: int) -> list[Round]:
    """The rounds that have not ended, in order."""
    query = select(Round).where(Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES)).order_by(Round.index)
    return list(session.scalars(query))


def stage_counts(session: Session, round_id: int) -> dict[str, StageCounts]:
    """By kind of unit; a kind that the round has no unit of is left out."""
    query = select(
        StageCount.kind,
        StageCount.num_units,
        StageCount.num_pending,
        StageCount.num_leased,
        StageCount.num_done,
        StageCount.num_dead,
        StageCount.items_total,
        StageCount.items_done,
        StageCount.seconds,
        StageCount.progress_at,
    ).where(StageCount.round_id == round_id)
    return {kind: StageCounts(*counts) for kind, *counts in session.execute(query)}


def ready_units(
    session: Session, round_id: int, kind: str, limit: int, *, reissue_after_s: float | None = None
) -> list[UnitRow]:
    """At most `limit` pending units of a kind that may begin, in planned order.

    With `reissue_after_s`, those that were sent to the workers less than so many seconds ago are left out.
    """
    query = _unit_rows().where(Unit.round_id == round_id, Unit.kind == kind, is_due()).order_by(Unit.id).limit(limit)
    if reissue_after_s is not None:
        query = query.where(or_(Unit.issued_at.is_(None), Unit.issued_at <= db_later(-reissue_after_s)))
    return [UnitRow(*row) for row in session.execute(query)]


def num_in_flight(session: Session, run_id: int, kind: str, *, sent_within_s: float | None = None) -> int:
    """How many units of a kind the workers hold or have been sent (in the last seconds), over the run's open rounds."""
    of_run = (Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES))
    leased = select(func.sum(StageCount.num_leased)).join(Round, Round.id == StageCount.round_id)
    sent = select(func.count()).select_from(Unit).where(in_state("pending"), Unit.issued_at.is_not(None))
    if sent_within_s is not None:
        sent = sent.where(Unit.issued_at > db_later(-sent_within_s))
    round_ids = select(Round.id).where(*of_run)
    num_leased = session.scalar(leased.where(*of_run, StageCount.kind == kind)) or 0
    return int(num_leased) + (session.scalar(sent.where(Unit.round_id.in_(round_ids), Unit.kind == kind)) or 0)


def first_dead(session: Session, round_id: int, kind: str | None = None) -> UnitRow | None:
    """The first dead unit of a round (of a kind), which says why the round cannot go on."""
    query = _unit_rows().where(Unit.round_id == round_id, in_state("dead")).order_by(Unit.id).limit(1)
    found = session.execute(query if kind is None else query.where(Unit.kind == kind)).first()
    return None if found is None else UnitRow(*found)


def _unit_rows() -> Select[int, int, int, str, str, str, dict[str, Any], int, str | None, int]:
    return select(
        Unit.id,
        Unit.round_id,
        Round.index,
        Unit.kind,
        Unit.key,
        Unit.state,
        Unit.payload,
        Unit.attempts,
        Unit.error,
        Unit.fencing_token,
    ).join(Round, Round.id == Unit.round_id)


def decision_of(session: Session, round_id: int) -> GateDecision | None:
    """The gate's decision on a round, where there is one."""
    return session.get(GateDecision, round_id)


def round_of(session: Session, round_id: int) -> Round:
    """A round by its id."""
    return session.get_one(Round, round_id)


def round_at(session: Session, run_id: int, index: int) -> Round:
    """A round of a run by its number."""
    return session.scalars(select(Round).where(Round.run_id == run_id, Round.index == index)).one()


def find_round(session: Session, run_id: int, index: int) -> Round | None:
    """The round of a number that somebody asks for; None where there is none."""
    return session.scalar(select(Round).where(Round.run_id == run_id, Round.index == index))


def round_of_candidate(session: Session, version_id: int) -> Round | None:
    """The round that trained a version; None for a base."""
    return session.scalar(select(Round).where(Round.candidate_version_id == version_id))


def waiting_retries(session: Session, run_id: int) -> list[Round]:
    """The ended rounds that are to be run again and were not planned again yet, the first request first."""
    again = aliased(Round)
    planned = select(again.id).where(again.retry_of_id == Round.id)
    query = select(Round).where(Round.run_id == run_id, Round.retry_requested_at.is_not(None), ~planned.exists())
    return list(session.scalars(query.order_by(Round.retry_requested_at, Round.index)))


def retry_of(session: Session, round_id: int) -> Round | None:
    """The round that runs this one again; None where there is none yet."""
    return session.scalar(select(Round).where(Round.retry_of_id == round_id))


def rounds_in_all(session: Session, run_id: int, num_rounds: int) -> int:
    """Return how many rounds a run of `num_rounds` comes to; a round that runs another one again does not count."""
    requested = select(func.count()).where(Round.run_id == run_id, Round.retry_requested_at.is_not(None))
    last_index = session.scalar(select(func.max(Round.index)).where(Round.run_id == run_id)) or 0
    waiting = len(waiting_retries(session, run_id))
    return max(num_rounds + (session.scalar(requested) or 0), last_index + waiting if waiting else 0)


def num_retries(session: Session, run_id: int) -> int:
    """Return how many rounds of a run repeat another one."""
    return session.scalar(select(func.count()).where(Round.run_id == run_id, Round.retry_of_id.is_not(None))) or 0


def prompt_ids_of(session: Session, round_id: int) -> list[int]:
    """The ids of a round's prompts, in order."""
    query = select(RoundPrompt.prompt_id).where(RoundPrompt.round_id == round_id).order_by(RoundPrompt.position)
    return list(session.scalars(query))


def run_of(session: Session, run_id: int) -> Run:
    """A run by its id."""
    return session.get_one(Run, run_id)


def prompts_at(session: Session, round_id: int, first: int, stop: int) -> list[PromptRow]:
    """The prompts of a round at positions first <= position < stop, in order."""
    query = (
        select(
            Prompt.id,
            RoundPrompt.position,
            Prompt.text,
            Prompt.category,
            Prompt.key,
            Prompt.spec,
            Prompt.instruction,
            Prompt.target,
            Prompt.source_sha256,
        )
        .join(RoundPrompt, RoundPrompt.prompt_id == Prompt.id)
        .where(RoundPrompt.round_id == round_id, RoundPrompt.position >= first, RoundPrompt.position < stop)
        .order_by(RoundPrompt.position)
    )
    return [PromptRow(*row) for row in session.execute(query)]


def samples_of(session: Session, round_id: int, prompts: Sequence[PromptRow]) -> list[DrawnRow]:
    """The samples of a round for consecutive `prompts`, ordered by position and sample index."""
    by_id = {prompt.id: prompt for prompt in prompts}
    query = (
        select(Sample.id, Sample.sample_index, Sample.image_sha256, Sample.prompt_id)
        .join(RoundPrompt, (RoundPrompt.round_id == Sample.round_id) & (RoundPrompt.prompt_id == Sample.prompt_id))
        .where(
            Sample.round_id == round_id,
            RoundPrompt.position >= prompts[0].position,
            RoundPrompt.position <= prompts[-1].position,
        )
        .order_by(RoundPrompt.position, Sample.sample_index)
    )
    return [DrawnRow(id_, index, sha256, by_id[prompt_id]) for id_, index, sha256, prompt_id in session.execute(query)]


def active_version(session: Session, run_id: int) -> ModelVersion | None:
    """The version that the next round draws with."""
    return session.scalar(select(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.state == "active"))


def base_version(session: Session, run_id: int) -> ModelVersion:
    """v0001."""
    return session.scalars(select(ModelVersion).where(ModelVersion.run_id == run_id, ModelVersion.number == 1)).one()


def version_of(session: Session, version_id: int) -> ModelVersion:
    """A model version by its id."""
    return session.get_one(ModelVersion, version_id)


def manifest_of(session: Session, round_id: int) -> Manifest:
    """The manifest of a round that has one."""
    return session.scalars(select(Manifest).where(Manifest.round_id == round_id)).one()


def verdicts(session: Session, round_id: int) -> dict[int, bool]:
    """Sample id to the checker's verdict, for a whole round."""
    query = (
        select(Assessment.sample_id, Assessment.score)
        .join(Sample, Sample.id == Assessment.sample_id)
        .where(Sample.round_id == round_id, Assessment.assessor == "checker", Assessment.state == "ok")
    )
    return {sample_id: score == 1.0 for sample_id, score in session.execute(query)}
