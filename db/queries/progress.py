"""What the coordinator and the units read: the round on its way, its units, its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Assessment, GateDecision, Manifest, ModelVersion, Prompt, Round, RoundPrompt, Run, Sample, Unit


@dataclass(frozen=True, slots=True)
class UnitRow:
    """A unit as the reconciler sees it."""

    id: int
    round_id: int
    round_index: int
    kind: str
    key: str
    state: str
    payload: dict[str, Any]
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class PromptRow:
    """A prompt of a round at its position."""

    id: int
    position: int
    text: str
    category: str
    key: str
    spec: dict[str, Any]


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


def units_of(session: Session, round_id: int) -> list[UnitRow]:
    """The units of a round in the order in which they were planned."""
    query = (
        select(
            Unit.id,
            Unit.round_id,
            Round.index,
            Unit.kind,
            Unit.key,
            Unit.state,
            Unit.payload,
            Unit.attempts,
            Unit.error,
        )
        .join(Round, Round.id == Unit.round_id)
        .where(Unit.round_id == round_id)
        .order_by(Unit.id)
    )
    return [UnitRow(*row) for row in session.execute(query)]


def decision_of(session: Session, round_id: int) -> GateDecision | None:
    """The gate's decision on a round, where there is one."""
    return session.get(GateDecision, round_id)


def round_of(session: Session, round_id: int) -> Round:
    """A round by its id."""
    return session.get_one(Round, round_id)


def run_of(session: Session, run_id: int) -> Run:
    """A run by its id."""
    return session.get_one(Run, run_id)


def prompts_at(session: Session, round_id: int, first: int, stop: int) -> list[PromptRow]:
    """The prompts of a round at positions first <= position < stop, in order."""
    query = (
        select(Prompt.id, RoundPrompt.position, Prompt.text, Prompt.category, Prompt.key, Prompt.spec)
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
