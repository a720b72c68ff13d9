"""Rounds as the command line and the dashboard show them.

Invariants:

- The keys of `rounds_table` are a stable contract (design, section 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session, aliased

from illume_db.leases import held_units, items_held
from illume_db.tables import GateDecision, Manifest, ModelVersion, Prompt, Round, RoundPrompt, StageCount, Unit
from illume_db.tables.rounds import TERMINAL_STATES
from illume_db.tables.units import in_state
from illume_db.tables.versions import version_name
from illume_db.updates import updates_table

STAGE_OF_KIND: Mapping[str, str] = {
    "sample": "sampling",
    "assess": "assessing",
    "train": "training",
    "evaluate": "gating",
}
"""The stage of each kind of unit; `stage_of` names another one for an evaluation before the gate."""

CALIBRATING = "calibrating"

BEFORE_THE_GATE = ("planned", "sampling", "assessing", "curating", "training")

MAX_UNITS = 200

MAX_PROMPTS = 200

NO_NUMBERS: Mapping[str, Any] = {
    "heldout": {"parent": None, "candidate": None, "delta": None},
    "diversity": {"parent": None, "candidate": None},
    "understanding": {"parent": None, "candidate": None},
    "editing": None,
    "judge_drift": None,
    "guards": None,
    "compared_by": None,
    "decodes": None,
    "at_setting": None,
    "looks": None,
    "closing": None,
}


def stage_of(kind: str, round_state: str) -> str:
    """Return the stage of a kind of unit in a round of this state.

    An evaluation before the gate counts as a calibration of the judge.
    """
    return CALIBRATING if kind == "evaluate" and round_state in BEFORE_THE_GATE else STAGE_OF_KIND[kind]


def rounds_table(session: Session, run_id: int) -> list[dict[str, Any]]:
    """Return one object per round, in order. A value that the round does not have yet is None; shares are in 0..1."""
    return _rows(session, _round_query().where(Round.run_id == run_id).order_by(Round.index))


def last_rounds(session: Session, run_id: int, limit: int, before: int | None = None) -> list[dict[str, Any]]:
    """Return the last rows of `rounds_table`, the latest first; `before` keeps only lower indexes."""
    query = _round_query().where(Round.run_id == run_id).order_by(Round.index.desc()).limit(limit)
    return _rows(session, query if before is None else query.where(Round.index < before))


def open_stages(session: Session, run_id: int) -> list[dict[str, Any]]:
    """Return the rounds that have not ended, in order: index, state, and stages as in `round_detail`."""
    rounds = select(Round).where(Round.run_id == run_id, Round.state.not_in(TERMINAL_STATES)).order_by(Round.index)
    found = []
    for round_ in session.scalars(rounds).all():
        counts = session.scalars(select(StageCount).where(StageCount.round_id == round_.id))
        stages = {stage_of(one.kind, round_.state): _stage(session, one) for one in counts}
        found.append({"index": round_.index, "state": round_.state, "stages": stages})
    return found


def round_detail(session: Session, run_id: int, index: int) -> dict[str, Any] | None:
    """Return a row of `rounds_table` with the round's stages, units and prompts; None if there is no such round.

    "units" are all units if there are at most MAX_UNITS, else the dead and the leased ones. "held" gives each leased
    unit's worker and the age of its last progress. "prompts" are the first MAX_PROMPTS of "num_prompts". These limits
    keep the time of a call independent of the round's size. "updates" are those of reinforcement learning.
    """
    rows = _rows(session, _round_query().where(Round.run_id == run_id, Round.index == index))
    if not rows:
        return None
    round_id = session.scalars(select(Round.id).where(Round.run_id == run_id, Round.index == index)).one()
    stages = list(session.scalars(select(StageCount).where(StageCount.round_id == round_id)))
    return rows[0] | {
        "stages": {stage_of(counts.kind, rows[0]["state"]): _stage(session, counts) for counts in stages},
        "units": _units(session, round_id, everything=sum(counts.num_units for counts in stages) <= MAX_UNITS),
        "held": held_units(session, round_id),
        "num_prompts": _num_prompts(session, round_id),
        "prompts": _prompts(session, round_id),
        "updates": updates_table(session, round_id),
    }


_Found = Select[Round, int, int, int, str, int, dict[str, Any], GateDecision, int]

_Parent = aliased(ModelVersion)

_Candidate = aliased(ModelVersion)

_Drawing = aliased(ModelVersion)

_Retried = aliased(Round)


def _round_query() -> _Found:
    return (
        select(
            Round,
            _Parent.number,
            _Drawing.number,
            _Candidate.number,
            Manifest.sha256,
            Manifest.num_rows,
            Manifest.counts,
            GateDecision,
            _Retried.index,
        )
        .join(_Parent, _Parent.id == Round.parent_version_id)
        .join(_Drawing, _Drawing.id == Round.drawing_version_id)
        .outerjoin(_Candidate, _Candidate.id == Round.candidate_version_id)
        .outerjoin(Manifest, Manifest.round_id == Round.id)
        .outerjoin(GateDecision, GateDecision.round_id == Round.id)
        .outerjoin(_Retried, _Retried.id == Round.retry_of_id)
    )


def _rows(session: Session, query: _Found) -> list[dict[str, Any]]:
    found = session.execute(query).all()
    work = _work(session, [row[0].id for row in found])
    return [_row(*row, work[row[0].id]) for row in found]


def _row(
    round_: Round,
    parent: int,
    drawing: int,
    candidate: int | None,
    manifest_sha256: str | None,
    num_rows: int | None,
    counts: dict[str, int] | None,
    decision: GateDecision | None,
    retry_of: int | None,
    work: dict[str, Any],
) -> dict[str, Any]:
    return {
        "index": round_.index,
        "state": round_.state,
        "parent": version_name(parent),
        "drawn_by": version_name(drawing),
        "staleness": round_.staleness,
        "candidate": version_name(candidate) if candidate is not None else None,
        "retry_of": retry_of,
        **NO_NUMBERS,
        **(decision.numbers if decision else {}),
        "judge_auc": round_.judge_auc,
        "samples": round_.num_samples,
        "accepted": round_.num_accepted,
        "curation": counts,
        "manifest_rows": num_rows,
        "manifest_sha256": manifest_sha256,
        "dead_units": work["dead_units"],
        "decision": decision.decision if decision else None,
        "reasons": decision.reasons if decision else [round_.error] if round_.error else [],
        "error": round_.error,
        "seconds": work["seconds"],
        "created_at": round_.created_at.isoformat(),
        "ended_at": round_.ended_at.isoformat() if round_.ended_at else None,
    }


def _work(session: Session, round_ids: list[int]) -> dict[int, dict[str, Any]]:
    """Return, by round id, the seconds by stage (summed over units) and the number of dead units."""
    work: dict[int, dict[str, Any]] = {id_: {"seconds": {}, "dead_units": 0} for id_ in round_ids}
    for counts in session.scalars(select(StageCount).where(StageCount.round_id.in_(round_ids))):
        work[counts.round_id]["dead_units"] += counts.num_dead
        if counts.num_done:
            work[counts.round_id]["seconds"][STAGE_OF_KIND[counts.kind]] = round(counts.seconds, 3)
    return work


def _stage(session: Session, counts: StageCount) -> dict[str, Any]:
    """Return the counts of a stage. Items of leased units count; a training has no others, and they are its steps."""
    held_done, held_total = items_held(session, counts.round_id, counts.kind) if counts.num_leased else (0, 0)
    items_total = counts.items_total or held_total
    return {
        "units": counts.num_units,
        "pending": counts.num_pending,
        "leased": counts.num_leased,
        "done": counts.num_done,
        "dead": counts.num_dead,
        "items_done": min(counts.items_done + held_done, items_total),
        "items_total": items_total,
    }


def _units(session: Session, round_id: int, *, everything: bool) -> list[dict[str, Any]]:
    fields = Unit.key, Unit.kind, Unit.state, Unit.attempts, Unit.seconds, Unit.error
    query = select(*fields).where(Unit.round_id == round_id).order_by(Unit.id).limit(MAX_UNITS)
    queries = [query] if everything else [query.where(in_state("dead")), query.where(in_state("leased"))]
    rows = [dict(row) for query in queries for row in session.execute(query).mappings()]
    return rows[:MAX_UNITS]


def _num_prompts(session: Session, round_id: int) -> int:
    last = select(func.max(RoundPrompt.position)).where(RoundPrompt.round_id == round_id)
    return (session.scalar(last) or 0) + 1


def _prompts(session: Session, round_id: int) -> list[dict[str, Any]]:
    query = (
        select(Prompt.text, Prompt.category, Prompt.key)
        .join(RoundPrompt, RoundPrompt.prompt_id == Prompt.id)
        .where(RoundPrompt.round_id == round_id)
        .order_by(RoundPrompt.position)
        .limit(MAX_PROMPTS)
    )
    return [dict(row) for row in session.execute(query).mappings()]
